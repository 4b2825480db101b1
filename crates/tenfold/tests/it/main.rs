//! The binary from outside: its commands, its exit codes, and a process that runs, reloads and ends.

mod admin;
mod commands;
mod drain;
mod failover;
mod hostile;
mod import;
mod own_writes;
mod pooling;
mod pooling_tls;
mod process;
mod restart;
mod running;
mod sharing;
mod sharing_hostile;
