//! What people type and what they read: pure values in, texts out.

mod cli;
mod inspect;
mod lab;
mod doctor;
mod map;
mod packets;
mod top;
mod print;
mod spelling;
