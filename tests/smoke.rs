use std::sync::Arc;
use stonelog::disk::sim::{Loss, SimDisk};
use stonelog::disk::Disk;
use stonelog::*;

#[test]
fn append_crash_reopen_on_sim() {
    let disk = SimDisk::new(1);
    let open = |d: &SimDisk| Options::new().disk(Arc::new(d.clone())).segment_bytes(4096).open("/log");
    let log = open(&disk).unwrap();
    for i in 0..100u64 { assert_eq!(log.append(format!("record {i}")).unwrap(), i); }
    println!("{:?}", log.segments());
    assert_eq!(&*log.read(50).unwrap(), b"record 50");
    disk.power_loss(Loss::Nothing);
    drop(log);
    let log = open(&disk).unwrap();
    println!("{}", log.recovery());
    assert_eq!(log.offsets(), 0..100);
    for i in 0..100u64 { assert_eq!(&*log.read(i).unwrap(), format!("record {i}").as_bytes()); }
    assert_eq!(log.records(..).map(|r| r.unwrap().to_vec()).collect::<Vec<_>>().len(), 100);
    log.truncate_front(30).unwrap();
    log.truncate_back(70).unwrap();
    log.append("x").unwrap();
    log.put_meta("a", "b").unwrap();
    log.close().unwrap();
    let log = open(&disk).unwrap();
    println!("{}", log.recovery());
    assert_eq!(log.offsets(), 30..71);
    assert_eq!(&*log.read(70).unwrap(), b"x");
    assert_eq!(log.meta("a").unwrap().unwrap(), b"b");
    log.truncate_front(1000).unwrap();
    assert_eq!(log.append("y").unwrap(), 1000);
    println!("{:?} {:?}", log.segments(), disk.list(std::path::Path::new("/log")).unwrap());
}

#[test]
fn threads_on_os() {
    let dir = tempfile::tempdir().unwrap();
    let log = Options::new().segment_bytes(64 << 10).open(dir.path().join("l")).unwrap();
    let mut hs = vec![];
    for t in 0..16 { let log = log.clone(); hs.push(std::thread::spawn(move || for i in 0..50 { log.append(format!("{t} {i}")).unwrap(); })); }
    for h in hs { h.join().unwrap(); }
    println!("{:?}", log.stats());
    let tickets: Vec<_> = (0..1000).map(|i| log.submit(format!("t{i}")).unwrap()).collect();
    for t in tickets { t.wait().unwrap(); }
    println!("{:?}", log.stats());
    let mut r = log.reader(0); let mut n = 0;
    while let Some(x) = r.next().unwrap() { assert_eq!(x.offset(), n); n += 1; }
    assert_eq!(n, 1800);
    log.close().unwrap();
    let log = Options::new().durability(Durability::Manual).open(dir.path().join("l")).unwrap();
    println!("{}", log.recovery());
    for i in 0..100000u64 { log.append(i.to_le_bytes()).unwrap(); }
    log.sync().unwrap();
    assert_eq!(&*log.read(101799).unwrap(), &99999u64.to_le_bytes());
    let ro = Log::open_read_only(dir.path().join("l")).unwrap();
    println!("ro {:?} {}", ro.offsets(), ro.recovery());
    assert!(matches!(Log::open(dir.path().join("l")), Err(Error::Locked{..})));
}
