//! One direction of one connection, under the weather. Called by [`super::connection`].

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::{Bells, Lane, Scene};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Up,
    Down,
}

/// Lets bytes through as the weather allows.
pub(super) struct Pour {
    scene: watch::Receiver<Scene>,
    born: u64,
    way: Way,
}

impl Pour {
    pub(super) fn new(scene: watch::Receiver<Scene>, born: u64, way: Way) -> Pour {
        Pour { scene, born, way }
    }

    fn lane_of(scene: &Scene, way: Way) -> Lane {
        match way {
            Way::Up => scene.weather.up,
            Way::Down => scene.weather.down,
        }
    }

    pub(super) fn bells(&self) -> Bells {
        self.scene.borrow().bells
    }

    /// Waits while nothing gets through.
    pub(super) async fn passage(&mut self) -> Lane {
        let (born, way) = (self.born, self.way);
        let open = |scene: &Scene| scene.stranded < born && !Pour::lane_of(scene, way).hole;
        let lane = self
            .scene
            .wait_for(open)
            .await
            .map(|scene| Pour::lane_of(&scene, way))
            .ok();
        match lane {
            Some(lane) => lane,
            // The proxy has ended: so will this connection.
            None => std::future::pending().await,
        }
    }

    /// Writes `bytes` as the weather of each moment has it.
    pub(super) async fn pour(
        &mut self,
        mut bytes: &[u8],
        into: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            let lane = self.passage().await;
            if !lane.delay.is_zero() {
                tokio::time::sleep(lane.delay).await;
                self.passage().await;
            }
            let piece = if lane.piece == 0 {
                bytes.len()
            } else {
                lane.piece.min(bytes.len())
            };
            into.write_all(&bytes[..piece]).await?;
            into.flush().await?;
            bytes = &bytes[piece..];
            if lane.piece != 0 {
                // So that the other end sees the pieces and not their sum.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
