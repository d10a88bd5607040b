//! What people type and what they read: pure values in, texts out.

mod cli;
mod lab;
mod map;
mod packets;
mod print;
mod spelling;
