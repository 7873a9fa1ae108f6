//! From a checkpoint to a running stream: connect, read the tails of the topics, and know what is written already.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use tracing::info;
