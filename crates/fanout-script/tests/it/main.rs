//! The stand-in over real sockets: what it says, what it refuses, and how it breaks.

mod faults;
mod history;
mod load;
mod rules;
mod saying;
mod shop;
mod threads;
mod wire;
