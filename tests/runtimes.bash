# shellcheck shell=bash
# Every runtime's containers on one host at once, held against what each runtime says of its own;
# and whether looking at them leaves a trace. Sourced by tests/peers, which has `try` and the like.

# Starts what all runtimes here have in common: a bridge, its address, and a name for it.
new-bridge() { # NAME ADDRESS
    try ip link add "$1" type bridge
    try ip address add "$2" dev "$1"
    try ip link set "$1" up
}

docker-containers() {
    local serve=(/bin/twinax demo http --port 80)
    try docker network create back
    try docker run -d --name d-web -p 8090:80 -p 127.0.0.1:5355:53/udp peer "${serve[@]}"
    try docker network connect back d-web
    try docker run -d --name d-side --network container:d-web peer /bin/twinax demo http --port 81
    try docker run -d --name d-none --network none peer "${serve[@]}"
    try docker run -d --name d-host --network host peer /bin/twinax demo http --port 8888
}

# An engine in a container: Docker in Docker, with the host's programs, and no network of its own.
docker-in-docker() {
    local folder
    mkdir -p outer/{usr,etc,proc,sys,dev,run,tmp,var/lib}
    for folder in bin sbin lib lib64; do ln -s "usr/$folder" "outer/$folder"; done
    cp /etc/{passwd,group,nsswitch.conf} outer/etc
    tar -C outer -c . | docker import - outer >/dev/null 2>&1
    cat >inner.sh <<'END'
export PATH=/usr/sbin:/usr/bin DOCKER_HOST=unix:///run/docker.sock
dockerd --bridge none --iptables=false --data-root /var/lib/docker --exec-root /run/docker \
    --pidfile /run/docker.pid --host "$DOCKER_HOST" --cgroup-parent "$1" --storage-driver vfs \
    >/tmp/docker.log 2>&1 &
until docker version >/dev/null 2>&1; do sleep 0.1; done
tar -C /given -c . | docker import - peer
docker run -d --network none --name d-nested peer /bin/twinax demo http --port 80
wait
END
    # Privileged, but for what a sandbox may lack itself.
    try docker run -d --name d-outer --cap-add SYS_ADMIN --cap-add NET_ADMIN \
        --security-opt seccomp=unconfined --security-opt apparmor=unconfined \
        --security-opt systempaths=unconfined -v /sys/fs/cgroup:/sys/fs/cgroup -v /usr:/usr:ro \
        -v /etc/alternatives:/etc/alternatives:ro -v /tmp/root:/given:ro \
        -v /tmp/inner.sh:/inner.sh:ro --tmpfs /run --tmpfs /tmp --tmpfs /var/lib:exec \
        outer /bin/bash /inner.sh "$PEERS_GROUP/inner"
    comes $daemon nested-runs ||
        wrong "the inner Docker does not start: $(docker logs d-outer 2>&1 | tail -3)"
}

inner-docker() { docker exec -e DOCKER_HOST=unix:///run/docker.sock d-outer docker "$@"; }

nested-runs() { [[ $(inner-docker inspect -f '{{.State.Running}}' d-nested) == true ]]; }

podman-containers() {
    local group=(--cgroup-parent "/$PEERS_GROUP")
    tar -C root -c . | podman import - peer >/dev/null 2>&1
    try podman network create p-net
    try podman run -d --name p-web "${group[@]}" --network p-net -p 8091:80 -p 127.0.0.1:5354:53/udp \
        peer /bin/twinax demo http --port 80
    try podman run -d --name p-side "${group[@]}" --network container:p-web peer \
        /bin/twinax demo http --port 81
    try podman pod create --name p-pod "${group[@]}" --infra-image peer \
        --infra-command '/bin/twinax demo http --port 80' -p 8092:80
    try podman run -d --pod p-pod --name p-in-pod "${group[@]}" peer /bin/twinax demo http --port 81
    try podman run -d --pod p-pod --name p-in-pod-too "${group[@]}" peer \
        /bin/twinax demo http --port 82
}

ctr() { command ctr --address /run/ctr.sock "$@"; }

# containerd, beside Docker's own; as process $shipper. One container with CNI's network, one
# with nothing, in two namespaces of containerd's; and a pod, for what Kubernetes uses of it.
containerd-containers() {
    mkdir pod-networks
    cat >pod-networks/10-k-net.conflist <<'END'
{"cniVersion": "0.4.0", "name": "k-net", "plugins": [
 {"type": "bridge", "bridge": "cni-k", "isGateway": true,
  "ipam": {"type": "host-local", "subnet": "10.61.0.0/24"}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
END
    cat >containerd.toml <<'END'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/library/peer:latest"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/tmp/pod-networks"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
END
    containerd --config containerd.toml --address /run/ctr.sock --root /var/lib/containerd \
        --state /run/containerd >containerd.log 2>&1 &
    shipper=$!
    comes $shipper ctr version || { wrong "containerd does not start: $(tail -1 containerd.log)"; return; }
    mount -t tmpfs none /opt
    mkdir -p /opt/cni /etc/cni
    ln -s /usr/lib/cni /opt/cni/bin
    mount -t tmpfs none /etc/cni
    mkdir -p /etc/cni/net.d
    cat >/etc/cni/net.d/10-c-net.conflist <<'END'
{"cniVersion": "0.4.0", "name": "c-net", "plugins": [{"type": "bridge", "bridge": "cni-c",
 "isGateway": true, "ipam": {"type": "host-local", "subnet": "10.60.0.0/24"}}]}
END
    try ctr run -d --cni --cgroup "$PEERS_GROUP/c-web" --rootfs /tmp/root c-web \
        /bin/twinax demo http --port 80
    try ctr -n other run -d --cgroup "$PEERS_GROUP/c-bare" --rootfs /tmp/root c-bare \
        /bin/twinax demo http --port 80
    umount /etc/cni
}

# A pod and a container in it, as a kubelet asks containerd for them: by the CRI, which is gRPC, of
# which a few fields are written here. Sets $pod and $app.
cri-pod() {
    local layer
    mkdir image
    tar -C root -cf image/layer.tar .
    layer=$(sha256sum image/layer.tar | cut -d' ' -f1)
    echo '{"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids":
        ["sha256:'"$layer"'"]}, "config": {"Cmd": ["/bin/twinax", "demo", "http", "--port", "80"]}}' \
        >image/config.json
    echo '[{"Config": "config.json", "RepoTags": ["docker.io/library/peer:latest"],
        "Layers": ["layer.tar"]}]' >image/manifest.json
    tar -C image -cf image.tar .
    try ctr -n k8s.io images import --snapshotter native image.tar
    # RunPodSandboxRequest { config = 1 }
    pod=$(cri RunPodSandbox "$(field 1 "$(sandbox)")")
    # CreateContainerRequest { pod_sandbox_id = 1, config = 2, sandbox_config = 3 }
    app=$(cri CreateContainer "$(text 1 "$pod")$(field 2 "$(container)")$(field 3 "$(sandbox)")")
    cri StartContainer "$(text 1 "$app")" >/dev/null
    [[ $pod$app =~ ^[0-9a-f]{128}$ ]] || wrong "no pod: $(cat cri.headers) $(tail -1 containerd.log)"
}

# PodSandboxConfig { metadata = 1 { name = 1, uid = 2, namespace = 3 }, hostname = 2,
#   log_directory = 3, port_mappings = 5 { container_port = 2, host_port = 3 },
#   linux = 8 { cgroup_parent = 1 } }: host port 8314 to port 80
sandbox() {
    field 1 "$(text 1 k-pod)$(text 2 0)$(text 3 shop)"
    text 2 k-pod
    text 3 /tmp/logs
    field 5 105018fa40
    field 8 "$(text 1 "/$PEERS_GROUP")"
}

# ContainerConfig { metadata = 1 { name = 1 }, image = 2 { image = 1 }, command = 3,
#   log_path = 11, linux = 15 }
container() {
    local word
    field 1 "$(text 1 k-app)"
    field 2 "$(text 1 docker.io/library/peer:latest)"
    for word in /bin/twinax demo http --port 81; do text 3 "$word"; done
    text 11 k-app.log
    field 15 ''
}

# A field of a message with bytes or a message in it, in hexadecimal.
field() { # NUMBER HEX
    local length=$((${#2} / 2))
    printf '%02x' $(($1 << 3 | 2))
    if ((length < 128)); then
        printf '%02x' $length
    else
        printf '%02x%02x' $((length & 127 | 128)) $((length >> 7))
    fi
    printf %s "$2"
}

text() { field "$1" "$(printf %s "$2" | od -An -v -tx1 | tr -d ' \n')"; } # NUMBER TEXT

# Calls a method, and prints the id that it answers.
cri() { # METHOD HEX
    local frame
    printf -v frame '%010x%s' $((${#2} / 2)) "$2"
    # shellcheck disable=SC2001
    printf '%b' "$(sed 's/../\\x&/g' <<<"$frame")" |
        curl -sS --http2-prior-knowledge --unix-socket /run/ctr.sock --data-binary @- -D cri.headers \
            -H 'content-type: application/grpc' -H 'te: trailers' \
            "http://localhost/runtime.v1.RuntimeService/$1" | grep -ao '[0-9a-f]\{64\}'
}

lxc-container() {
    new-bridge br-lxc 10.50.0.1/24
    mkdir -p /var/lib/lxc/l-box
    cat >/var/lib/lxc/l-box/config <<END
lxc.uts.name = l-box
lxc.rootfs.path = dir:/tmp/root
lxc.init.cmd = /bin/twinax demo http --port 80
lxc.mount.auto = proc:rw sys:ro
lxc.net.0.type = veth
lxc.net.0.link = br-lxc
lxc.net.0.flags = up
lxc.net.0.ipv4.address = 10.50.0.2/24
lxc.cgroup.dir.container = $PEERS_GROUP/lxc.payload.l-box
lxc.cgroup.dir.monitor = $PEERS_GROUP/lxc.monitor.l-box
END
    try lxc-start -n l-box -o lxc.log -l INFO
}

# Without systemd as process 1 there is nobody to register with, and a directory for each. Their
# monitors are $spawners.
nspawn-containers() {
    local name
    new-bridge br-spawn 10.51.0.1/24
    spawners=()
    for name in s-box s-veth; do
        cp -a root "$name"
        mkdir -p "$name"/{usr,var,root,run}
        : >"$name/etc/os-release"
    done
    spawn s-box --network-bridge=br-spawn
    spawn s-veth --network-veth
}

spawn() { # NAME OPTION
    systemd-nspawn --quiet --keep-unit --register=no "--directory=/tmp/$1" "--machine=$1" "$2" \
        /bin/twinax demo http --port 80 </dev/null >>nspawn.log 2>&1 &
    spawners+=("$1 $!")
    comes $! serves-inside $! || wrong "nspawn does not start: $(tail -2 nspawn.log)"
}

# Whether the first child of a process is the server that it was told to start.
serves-inside() { grep -q demo "/proc/$(first-child "$1")/cmdline"; }

first-child() { sed 's/ .*//' "/proc/$1/task/$1/children"; }

# Names, a process that has none of them, and one in a name.
plain-namespaces() {
    try ip netns add n-idle
    try ip netns add n-used
    ip netns exec n-used sleep 1000 &
    named=$!
    unshare -n sleep 1001 &
    bare=$!
    comes $bare grep -q 1001 "/proc/$bare/cmdline"
    comes $named grep -q 1000 "/proc/$named/cmdline"
}

# A line of each container as its runtime has it: runtime, name, process, namespace, networks,
# published ports, whose network it shares.
line() { # RUNTIME NAME PID [NETWORKS [PORTS [OF]]]
    echo "$1 $2 $3 $(readlink "/proc/$3/ns/net") networks=${4:-} ports=${5:-} of=${6:-}"
}

docker-says() {
    local name
    for name in d-web d-side d-none d-host d-outer; do
        # shellcheck disable=SC2046
        line docker "$name" $(docker inspect "$name" | jq -r '.[0] | [.State.Pid,
            (.NetworkSettings.Networks | keys | join(",") | if . == "" then "-" else . end),
            (.NetworkSettings.Ports // {} | [to_entries[] | .key as $to | .value[]?
                | "\(.HostPort)->\($to)"] | unique | join(",") | if . == "" then "-" else . end),
            (.HostConfig.NetworkMode | ltrimstr("container:") | select(length == 64))]
            | join(" ")')
    done | sed 's/=-/=/g'
    # Its process has another number here than the inner engine has for it.
    local inner
    inner=$(inner-docker inspect -f '{{.State.Pid}}' d-nested)
    inner=$(docker exec d-outer readlink "/proc/$inner/ns/net")
    for name in /proc/[0-9]*; do
        [[ $(readlink "$name/ns/net") == "$inner" ]] && line docker d-nested "${name#/proc/}" none
    done
}

podman-says() {
    local name
    # Podman has networks and ports of whoever's network it is; Twinax says whose that is.
    for name in $(podman ps --format '{{.Names}}'); do
        # shellcheck disable=SC2046
        line podman "$name" $(podman inspect "$name" | jq -r 'def given: if . == "" then "-" else . end;
            .[0] | (.HostConfig.NetworkMode | capture("^container:(?<id>.*)") // {id: ""} | .id) as $of
            | if $of != "" then [.State.Pid, "-", "-", $of] else
                [.State.Pid, (.NetworkSettings.Networks | keys | join(",") | given),
                 ([.NetworkSettings.Ports | to_entries[] | .key as $to | .value[]?
                    | "\(.HostPort)->\($to)"] | unique | join(",") | given)] end | join(" ")')
    done | sed 's/=-/=/g'
}

runtimes-say() {
    docker-says
    podman-says
    line containerd c-web "$(ctr tasks ls | awk '$1 == "c-web" { print $2 }')" c-net
    line containerd c-bare "$(ctr -n other tasks ls | awk '$1 == "c-bare" { print $2 }')"
    line cri k-pod "$(ctr -n k8s.io tasks ls | awk -v id="$pod" '$1 == id { print $2 }')" k-net '8314->80/tcp'
    line cri k-app "$(ctr -n k8s.io tasks ls | awk -v id="$app" '$1 == id { print $2 }')" k-net
    line lxc l-box "$(lxc-info -n l-box -pH)" br-lxc
    local name pid
    for name in "${spawners[@]}"; do
        read -r name pid <<<"$name"
        line nspawn "$name" "$(first-child "$pid")" "$([[ $name == s-box ]] && echo br-spawn)"
    done
    ip netns list | while read -r name _; do
        pid=$(ip netns pids "$name" | head -1)
        case $name in
        n-used) line ip-netns n-used "$pid" ;;
        n-idle) echo "ip-netns n-idle  net:[$(stat -L -c %i /run/netns/n-idle)] networks= ports= of=" ;;
        esac
    done
    line process sleep $bare
    line twinax left "$(inside left)" web '5353->53/udp,8080->80/tcp'
    line twinax right "$(inside right)" web
}

map-says() {
    twinax map --json | jq -r '.namespaces[] | .inode as $inode | .containers[]
        | [.runtime, .name, .pid, "net:[\($inode)]", "networks=" + (.networks | join(",")),
           "ports=" + ([.published[] | "\(.host_port)->\(.container_port)/\(.proto)"] | unique | join(",")),
           "of=" + (.labels["network of"] // "")] | join(" ")'
}

# Starts them all, once.
all-start() {
    [[ ${started:-} != yes ]] || { two; return; }
    rootfs
    docker-starts || return
    started=yes
    two
    docker-containers
    docker-in-docker
    podman-containers
    containerd-containers
    cri-pod
    lxc-container
    nspawn-containers
    plain-namespaces
}

check-all-runtimes-at-once() {
    local said
    all-start
    [[ -z $unable ]] || return
    same "what map says of all containers" "$(map-says | sort)" "$(runtimes-say | sort)"
    same "the cables of all containers" "$(cables-seen)" "$(cables-there)"
    # Hidden namespaces of the machine are seen too, and may have the same addresses.
    same "their addresses, as the runtimes have them" "$(addresses-told | while read -r name address; do
        twinax peer "$address" --json | jq -r --arg name "$name" --arg address "$address" \
            '.cables[].far | select(any(.containers[]?; .name == $name)) | "\($name) \($address)"'
    done)" "$(addresses-told)"
    same "the host's end of l-box" "$(twinax peer l-box --json | jq -r '.cables[0].near.name')" \
        "$(lxc-info -n l-box | sed -n 's/^Link: *//p')"
    same "what is inside d-outer" "$(twinax map --json |
        jq -r '.namespaces[].containers[] | select(.labels.inside == "d-outer") | .name')" d-nested
    same "what is in the pod" "$(twinax map --json | jq -r '.namespaces[]
        | [.containers[] | select(.pod == "shop/k-pod") | "\(.name) \(.id)"] | select(length > 0) | sort[]')" \
        "k-app $app"$'\n'"k-pod $pod"
    has "map" "$(twinax map)" '→ pod p-pod:80 .*listener'
    has "map" "$(twinax map)" '→ pod shop/k-pod:80 .*listener'
    has "map" "$(twinax map)" '─ d-host +docker peer +pid [0-9]+$'
    # Who may see neither namespaces nor files is told of the containers all the same.
    same "what an ordinary user is told of Docker's containers" "$(setpriv --reuid 65534 --regid 65534 \
        --clear-groups twinax map --json | jq -r '.unplaced[] | select(.runtime == "docker") | .id' | sort)" \
        "$( (docker ps -q --no-trunc; inner-docker ps -q --no-trunc) | sort)"
    # Daemons that hang are not missed.
    said=$(map-says)
    kill -STOP "$daemon" "$shipper"
    same "what map says while daemons hang" "$(timeout 10 bash -c 'twinax map --json' >/dev/null; map-says)" "$said"
    kill -CONT "$daemon" "$shipper"
}

# Container, its interface, and the host's end, by the numbers that `ip` shows of both.
cables-there() {
    local ends runtime name pid
    ends=$(ip -j link)
    runtimes-say | while read -r runtime name pid _; do
        [[ $name == n-idle || $name == d-host ]] && continue
        nsenter -t "$pid" -n ip -j -d link | jq -r --arg name "$name" --argjson ends "$ends" '.[]
            | select(.linkinfo.info_kind == "veth") | .link_index as $far
            | "\($name) \(.ifname) \($ends[] | select(.ifindex == $far) | .ifname)"'
    done | sort
}

cables-seen() {
    twinax map --json | jq -r '.namespaces[] | .containers[].name as $name | .links[]
        | select(.kind == "veth" and .leads_to.proven and .leads_to.namespace == "host")
        | "\($name) \(.name) \(.leads_to.interface)"' | grep -v '^d-host ' | sort
}

addresses-told() {
    docker inspect -f '{{range .NetworkSettings.Networks}}d-web {{.IPAddress}}
{{end}}' d-web | grep .
    podman inspect p-web | jq -r '.[0].NetworkSettings.Networks[] | "p-web \(.IPAddress)"'
    echo "l-box $(lxc-info -n l-box -iH)"
    twinax ps --json | jq -r '.containers[] | .name as $name | .networks[].addresses[] | "\($name) \(.)"' 
}

# All of the host that looking could change. Numbers of namespaces are given out where links are
# listed in the usual way, so no link is listed here.
traces() {
    local process pid stat seen=' ' netns
    cut -d' ' -f1 /proc/modules 2>/dev/null | sort
    find /run /var/lib /etc /tmp -printf '%p %y %s %m %T@ %C@\n' 2>/dev/null | sort
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        read -r stat 2>/dev/null <"$process/stat" || continue
        # Neither ourselves nor what we start to look with.
        [[ $pid == "$BASHPID" || ${stat##*) } == ?" $BASHPID "* ]] && continue
        echo "process $pid ${stat##*) }" | cut -d' ' -f1,2,4,22
        readlink "$process"/ns/*
        cksum <"$process/mountinfo"
        netns=$(readlink "$process/ns/net")
        [[ $seen == *" $netns "* ]] || traces-in "$process/ns/net"
        seen+="$netns "
    done
    for netns in /run/netns/*; do traces-in "$netns"; done
}

# Without what counts and what time changes.
traces-in() { # NAMESPACE
    echo "$1"
    nsenter "--net=$1" bash -c 'ip netns list-id; nft -s list ruleset; iptables-save | grep "^-"
        cut -d: -f1 /proc/self/net/dev; cut -c1-41 /proc/self/net/if_inet6; cat /proc/self/net/fib_trie
        cut -d" " -f3- /proc/self/net/packet
        cd /proc/sys/net; find . -type f ! -name nf_conntrack_count | sort | xargs grep -s .' 2>/dev/null
}

flows() { # a line each, without what counts down
    conntrack -L 2>/dev/null | awk '{ line = $1
        for (n = 2; n <= NF; n++) if ($n ~ /^(src|dst|sport|dport)=/) line = line " " $n
        print line }' | sort
}

check-looking-leaves-no-trace() {
    local before handle form flows left=20
    all-start
    [[ -z $unable ]] || return
    # Until nothing changes any more by itself: the kernel looks at links again a second later.
    before=$(traces)
    until sleep 1.5 && flows=$(flows) && [[ $(traces) == "$before" ]]; do
        before=$(traces)
        ((left-- > 0)) || { wrong "the host does not come to rest"; return; }
    done
    for form in text json dot mermaid svg html; do
        try twinax map --all --output "$form"
    done
    for handle in d-web p-web c-web shop/k-pod p-pod l-box s-box left 10.50.0.2; do
        try twinax peer "$handle"
    done
    same "the host, after looking," "$(traces)" "$before"
    [[ -n $flows ]] || wrong "no connection is tracked"
    same "connections, after looking," "$(comm -13 <(echo "$flows") <(flows))" ''
    # Each kind of change would be noticed.
    notices 'ip netns set n-idle 4242'
    notices 'ip netns exec n-idle ip netns set n-used 4243'
    notices 'echo >/run/trace' 'rm /run/trace'
    notices 'touch /var/lib/lxc/l-box/config'
    notices 'ip link add trace type bridge' 'ip link del trace'
    notices 'ip netns exec n-used sysctl -qw net.ipv4.conf.lo.rp_filter=2'
    notices 'nft add table inet trace' 'nft delete table inet trace'
    notices 'mount -t tmpfs none /opt' 'umount /opt'
    notices 'unshare -n sleep 1002 & extra=$!' 'kill $extra'
}

# Expects that `traces` differ by a change.
notices() { # CHANGE [UNDO]
    local before
    before=$(traces)
    eval "$1" || wrong "$1 failed"
    [[ $(traces) != "$before" ]] || wrong "traces do not show: $1"
    eval "${2:-}"
}
