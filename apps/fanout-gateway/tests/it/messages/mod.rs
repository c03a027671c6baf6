//! The Messages API's own paths: a client on one side, the scripted server on the other, tools of ours in between.
//!
//! After every scene the scripted server has no complaint.

mod scene;

mod chats;
mod clients_tools;
mod failures;
mod passed_on;
mod plans;
mod repeated;
mod restarts;
mod threads;
mod turns;
