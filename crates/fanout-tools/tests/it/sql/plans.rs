//! Atomic plans: all calls of one are kept together or not at all, whatever comes in between, and each says which.

mod broken;
mod met;
pub(super) mod shop;
mod whole;
