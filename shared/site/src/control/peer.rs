//! Who may use the control socket: the user that runs the daemon, and root.

use tokio::net::UnixStream;

/// Why the peer of `stream` is refused; `None` when it may come in. What the kernel says counts.
pub fn refusal(stream: &UnixStream) -> Option<String> {
    match stream.peer_cred() {
        Ok(peer) => uid_refusal(peer.uid(), rustix::process::geteuid().as_raw()),
        Err(error) => Some(format!("the kernel does not say who asks: {error}")),
    }
}

fn uid_refusal(peer: u32, own: u32) -> Option<String> {
    (peer != own && peer != 0)
        .then(|| format!("user {peer} asks, only user {own} and root may (peer credentials)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_user_and_root_come_in() {
        assert_eq!(uid_refusal(1000, 1000), None);
        assert_eq!(uid_refusal(0, 1000), None);
        assert!(uid_refusal(1001, 1000).is_some());
        assert!(uid_refusal(1000, 0).is_some());
    }
}
