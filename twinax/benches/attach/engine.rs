//! The engine as a resident process has it: one world, opened once, one request after another.

use std::path::Path;

/// What the floor has to know of the network that the engine has made.
#[derive(Clone, Debug)]
pub struct Facts {
    pub bridge: String,
    pub group: u32,
    pub mtu: u32,
}

/// The engine on this sandbox's kernel.
pub struct Engine {}

impl Engine {
    pub fn open() -> Result<Self, String> {
        Err("this build has no engine yet".to_owned())
    }

    /// Attaches the namespace at `netns` to the default network, as `network connect` does.
    pub fn attach(&mut self, _netns: &Path, _host_port: u16) -> Result<(), String> {
        Err("this build has no engine yet".to_owned())
    }

    /// Detaches it, and forgets it.
    pub fn detach(&mut self, _netns: &Path) -> Result<(), String> {
        Err("this build has no engine yet".to_owned())
    }

    pub fn facts(&mut self) -> Result<Facts, String> {
        Err("this build has no engine yet".to_owned())
    }
}
