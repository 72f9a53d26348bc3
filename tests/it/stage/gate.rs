//! A way to a server that can be shut: connections through it end, and new ones are refused until it is opened again.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The way; it ends with the test.
pub(crate) struct Gate {
    port: u16,
    /// How often it was shut, and whether it is.
    state: watch::Sender<(u64, bool)>,
    listening: tokio::task::JoinHandle<()>,
}

impl Gate {
    /// To `127.0.0.1:port` or the like.
    pub(crate) async fn to(address: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (state, seen) = watch::channel((0, false));
        let address: Arc<str> = address.into();
        let listening = tokio::spawn(async move {
            loop {
                let Ok((inside, _)) = listener.accept().await else { continue };
                let (mut seen, address) = (seen.clone(), Arc::clone(&address));
                let (shut, is_shut) = *seen.borrow_and_update();
                if is_shut {
                    continue;
                }
                tokio::spawn(async move {
                    let mut inside = inside;
                    let Ok(mut outside) = TcpStream::connect(&*address).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inside, &mut outside) => {}
                        _ = seen.wait_for(|(now, _)| *now > shut) => {}
                    }
                });
            }
        });
        Self { port, state, listening }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections; others are refused from now on.
    pub(crate) fn shut(&self) {
        self.state.send_modify(|(shut, is_shut)| (*shut, *is_shut) = (*shut + 1, true));
    }

    /// Lets connections through again.
    pub(crate) fn open(&self) {
        self.state.send_modify(|(_, is_shut)| *is_shut = false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.listening.abort();
    }
}
