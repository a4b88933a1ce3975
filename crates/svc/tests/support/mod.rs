//! What the comparison with Redis is made of.

pub mod generator;
pub mod redis;
pub mod resp;
pub mod twin;
