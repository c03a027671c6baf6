//! Configurations as people write them, and what is made of them.

mod build;
mod config;
mod keys;
mod limits;
mod lines;
mod mistakes;
mod openapi;
