//! What every measurement needs, so that each binary is one story.
//!
//! The measurements themselves are the binaries in `src/bin`; each header has its command. A number that is printed or
//! stored was measured by the process that prints it, or by a child that it started.

pub mod machine;
pub mod process;
pub mod results;
pub mod statistics;
pub mod usage;

pub mod clients;
pub mod fixed;
pub mod mock;
pub mod ours;
pub mod raw;
pub mod tools;
