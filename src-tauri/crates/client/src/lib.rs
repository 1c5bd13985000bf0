//! The one loop: intake, policy, pool, outbox. Owns every task of the core
