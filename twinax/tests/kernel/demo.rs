//! The example's servers talk to each other and to the clients.

use crate::{
    harness::Outcome,
    sandbox::{Netns, Sandbox},
    tests,
};

tests![a_page_shows_the_chain_behind_it, echo_tells_the_client, clients_say_why_there_is_no_answer];

fn serve(sandbox: &mut Sandbox, args: &str) {
    let args: Vec<&str> = args.split(' ').collect();
    sandbox.serve(&Netns::current().unwrap(), &args);
}

fn demo(sandbox: &Sandbox, args: &str) -> crate::sandbox::Output {
    let args: Vec<&str> = ["demo"].into_iter().chain(args.split(' ')).collect();
    sandbox.twinax(&args)
}

fn a_page_shows_the_chain_behind_it(sandbox: &mut Sandbox) -> Outcome {
    serve(sandbox, "kv --port 6379");
    serve(sandbox, "http --port 8081 --name api --upstream kv://127.0.0.1:6379");
    serve(sandbox, "http --port 80 --name web --upstream [::1]:8081");
    for (url, visit) in [("http://127.0.0.1", 1), ("http://[::1]:80/", 2)] {
        let page = demo(sandbox, &format!("fetch {url}")).ok();
        let lines: Vec<&str> = page.lines().collect();
        assert!(lines[0].starts_with("web was asked by "), "{page}");
        assert!(lines[1].starts_with("  api was asked by [::1]:"), "{page}");
        assert_eq!(lines[2], format!("    visit {visit} counted by 127.0.0.1:6379"));
    }
    let missing = demo(sandbox, "fetch http://127.0.0.1/none");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("answered with status 404"), "{missing:?}");
    Outcome::Passed
}

fn echo_tells_the_client(sandbox: &mut Sandbox) -> Outcome {
    serve(sandbox, "echo --tcp --port 7");
    serve(sandbox, "echo --udp --port 7");
    demo(sandbox, "wait 127.0.0.1:7").ok();
    for (target, client) in [("127.0.0.1:7", "127.0.0.1:"), ("[::1]:7", "[::1]:")] {
        for transport in ["--tcp", "--udp"] {
            let answer = demo(sandbox, &format!("send {transport} {target} hello")).ok();
            assert!(answer.starts_with(client) && answer.ends_with(" hello\n"), "{answer}");
        }
    }
    Outcome::Passed
}

fn clients_say_why_there_is_no_answer(sandbox: &mut Sandbox) -> Outcome {
    for command in ["fetch http://127.0.0.1:9", "send --udp 127.0.0.1:9 x"] {
        let output = demo(sandbox, command);
        assert_eq!(output.code, Some(1));
        assert!(output.stderr.contains("connection refused"), "{output:?}");
    }
    let output = demo(sandbox, "wait 127.0.0.1:9 --timeout 0.1");
    assert!(output.code == Some(1) && output.stderr.contains("connection refused"), "{output:?}");
    assert_eq!(demo(sandbox, "fetch ftp://x").code, Some(2));
    Outcome::Passed
}
