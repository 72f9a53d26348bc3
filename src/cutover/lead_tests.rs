use super::*;

#[test]
fn a_source_that_was_not_read_is_blamed_itself() {
    let moments = vec![("crm".to_owned(), Moment(9)), ("base".to_owned(), Moment(5))];
    let fence = Fence { id: Uuid::from_u128(1), moments };
    assert_eq!(unread(&fence, &[("crm", Some(Moment(9))), ("base", Some(Moment(4)))]), ["base"]);
    assert_eq!(unread(&fence, &[("crm", Some(Moment(10)))]), ["base"], "never read");
    assert!(unread(&fence, &[("crm", Some(Moment(9))), ("base", Some(Moment(7)))]).is_empty());
}
