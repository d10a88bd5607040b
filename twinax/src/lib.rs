//! The shell of Twinax: every effect on the machine, and every dialect spoken with users.

pub mod linux;
