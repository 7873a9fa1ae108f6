//! Single steps of a reader.

use super::*;
use crate::producer::connection::Connector;

/// A fault of one partition says nothing of others: of thousands each would have to be asked for again.
#[tokio::test]
async fn where_one_partition_ends_does_not_cost_the_others_their_leaders() {
    let nobody = ["127.0.0.1:1".to_owned()];
    let cluster = Cluster::new(Arc::new(Connector::plain()), &nobody).unwrap();
    let cluster = Mutex::new(cluster);
    let key = |partition| PartitionKey {
        topic_id: 0,
        partition,
    };
    let leader = Leader { id: 1, epoch: 7 };
    let mut reader = Reader {
        cluster: &cluster,
        name: &|_| "shop.orders".into(),
        leaders: (0..3).map(|partition| (key(partition), leader)).collect(),
        absent: BTreeSet::from([key(3)]),
        connections: HashMap::new(),
    };
    assert_eq!(reader.log_end(key(1)).await, None, "nobody tells");
    let left: Vec<_> = reader.leaders.keys().copied().collect();
    assert_eq!(left, [key(0), key(2)]);
    assert!(reader.absent.contains(&key(3)));
}
