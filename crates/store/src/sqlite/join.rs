//! Nodes: who is on this file. Each holds its lock while it lives, see [`super::lock`].

use rusqlite::params;
use waystation_core::message::NodeId;

use super::fault::Answer;
use super::lock;
use super::state::State;

impl State<'_> {
    /// Gives out a node's number, before it is a node: its lock comes first.
    pub(super) fn next_node(&mut self) -> i64 {
        let node = self.totals.next_node;
        self.totals.next_node += 1;
        node
    }

    /// Writes a node's row.
    pub(super) fn join_node(&mut self, node: i64, name: &str, port: u16) -> Answer<()> {
        self.wrote = true;
        self.db.execute(
            "INSERT INTO node (id, name, port) VALUES (?1, ?2, ?3)",
            params![node, name, port],
        )?;
        self.ring.others = true;
        self.reload_nodes()
    }

    /// Takes out the nodes that are dead; gives them. Their watchers tell as well, a moment later;
    /// whoever asks for lost leases is not to wait for that.
    pub(super) fn take_out_dead(&mut self) -> Answer<Vec<i64>> {
        let mut dead = Vec::new();
        for (node, _) in self.nodes.clone() {
            let id = NodeId(node.cast_unsigned());
            // Where the system cannot tell, leases end by time.
            if matches!(lock::is_alive(&self.path, id), Ok(false)) {
                self.node_gone(node)?;
                dead.push(node);
            }
        }
        Ok(dead)
    }

    /// Takes a node that left or died out: its tied leases are lost. Says whether it was there.
    pub(super) fn node_gone(&mut self, node: i64) -> Answer<bool> {
        let was_there = self.db.execute("DELETE FROM node WHERE id = ?1", [node])? > 0;
        if was_there {
            self.wrote = true;
            self.lose_claims_of(node.cast_unsigned())?;
            self.ring.others = true;
            self.reload_nodes()?;
        }
        Ok(was_there)
    }
}
