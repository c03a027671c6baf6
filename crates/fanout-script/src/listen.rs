//! An open port with room for a crowd.
//!
//! From an address. To [`server`](crate::server) and [`shop`](crate::shop), which serve on it. It accepts nothing itself.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;

/// How many connections may wait to be accepted. The usual 128 overflow when five hundred conversations begin at once, and
/// what overflows is reset.
const WAITING_MAX: u32 = 4096;

/// Opens the port, in the runtime of the caller.
///
/// # Errors
/// When there is no runtime here, or the address can't be had.
pub(crate) fn open(address: SocketAddr) -> io::Result<(Handle, TcpListener)> {
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A fixed port can be had again at once after a restart.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok((runtime, socket.listen(WAITING_MAX)?))
}
