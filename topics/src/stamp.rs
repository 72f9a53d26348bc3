/// What a record of a log says beside its event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Which capture sent it: what an older one still had in hand is dropped once a newer one has spoken.
    pub epoch: i64,
    /// The tables held nothing of its collection when the copy began: rows may be copied in.
    pub fresh: bool,
    /// Its collection is being copied again: its row keys are noted as seen.
    pub noted: bool,
}
