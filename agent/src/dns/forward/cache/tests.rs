use super::super::cached::tests::{answer, query};
use super::*;
use crate::dns::message::Query;

fn kept(name: &str, ttl: u32) -> Arc<CachedAnswer> {
    let query = query(name);
    let parsed = Query::parse(&query).unwrap();
    Arc::new(CachedAnswer::read(&parsed, &answer(&query, ttl, &[80])).unwrap())
}

/// Describes what is known of the name at this time.
fn known(cache: &mut Cache, name: &str, at: Instant) -> &'static str {
    match cache.find(&Query::parse(&query(name)).unwrap(), at) {
        Known::Answer(_, Age::Fresh(_)) => "fresh",
        Known::Answer(_, Age::Stale) => "stale",
        Known::Before(_) => "before",
        Known::Nothing => "nothing",
    }
}

fn insert(cache: &mut Cache, name: &str, ttl: u32, at: Instant) -> u64 {
    cache.insert(&Query::parse(&query(name)).unwrap(), kept(name, ttl), at)
}

#[test]
fn an_answer_holds_for_its_lifetime_and_serves_a_day_more_where_nobody_gives_another() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(known(&mut cache, "www.example.com", start), "nothing");
    assert_eq!(insert(&mut cache, "www.example.com", 60, start), 0);
    assert_eq!(known(&mut cache, "WWW.exaMPLE.COM", at(59)), "fresh", "in any spelling");
    assert_eq!(known(&mut cache, "example.com", at(1)), "nothing");
    assert_eq!(known(&mut cache, "www.example.com", at(60)), "before");
    cache.failed(&Query::parse(&query("www.example.com")).unwrap(), at(60));
    assert_eq!(known(&mut cache, "www.example.com", at(64)), "stale", "nobody is asked for a while");
    assert_eq!(known(&mut cache, "www.example.com", at(65)), "before", "then somebody is");
    assert_eq!(known(&mut cache, "www.example.com", at(60 + 24 * 3600 - 1)), "before");
    assert_eq!(known(&mut cache, "www.example.com", at(60 + 24 * 3600)), "nothing");
    assert_eq!((cache.size, cache.order.len()), (0, 0));
}

#[test]
fn an_answer_that_is_not_to_be_kept_takes_the_place_of_the_one_before() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    insert(&mut cache, "www.example.com", 60, start);
    insert(&mut cache, "www.example.com", 0, start);
    assert_eq!(known(&mut cache, "www.example.com", start), "nothing");
}

#[test]
fn memory_is_bounded_and_names_that_are_asked_for_stay() {
    let (mut cache, start) = (Cache::default(), Instant::now());
    insert(&mut cache, "www.example.com", 3600, start);
    let mut evicted = 0;
    for number in 0..20_000 {
        evicted += insert(&mut cache, &format!("{number}.example.com"), 3600, start);
        assert_eq!(known(&mut cache, "www.example.com", start), "fresh");
        assert!(cache.size <= MAX_SIZE, "{}", cache.size);
    }
    assert_eq!(cache.entries.len() + usize::try_from(evicted).unwrap(), 20_001);
    assert_eq!(cache.entries.len(), cache.order.len());
    assert!(cache.size > (2 << 20) - 1000, "{}", cache.size);
    assert!((2000..7000).contains(&cache.entries.len()), "{}", cache.entries.len());
    let costs: usize = cache.entries.values().map(|entry| cost(&entry.answer)).sum();
    assert_eq!(cache.size, costs);
}
