use slackwater_connectors::error::{Error, Kind};
use slackwater_connectors::postgres::client::connect;
use slackwater_connectors::postgres::progress::Notes;
use slackwater_connectors::postgres::target::rows::WriteSet;
use slackwater_connectors::secret::Secret;

use super::database::{V, from, ours, refusing, row, spec, text, with};

fn says_nothing(error: &Error) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn no_value_gets_into_an_error() {
    with(|database| async move {
        let catalog = database
            .tables(
                "CREATE TYPE mood AS ENUM ('sad');
                 CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                     IF NEW.free = 'hunter2 raise' THEN
                         RAISE NOTICE '%', NEW.free;
                         RAISE EXCEPTION 'not %', NEW.free USING HINT = NEW.free, DETAIL = NEW.free;
                     END IF;
                     IF NEW.free = 'hunter2 raise ours' THEN
                         RAISE EXCEPTION 'not %', NEW.free USING ERRCODE = 'OURS1';
                     END IF;
                     RETURN NEW;
                 END $$;
                 CREATE TABLE t (id uuid PRIMARY KEY, name text UNIQUE, mood mood, short varchar(3), extra jsonb,
                     free text CHECK (free <> 'hunter2 check'), p uuid REFERENCES t);
                 CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse();",
                &["t"],
            )
            .await;
        let columns = ["id", "name", "mood", "short", "extra", "free", "p"];
        let specs = || vec![refusing(spec(&catalog, "t", &columns, &["id"], None))];
        let good = || vec![ours(1), text("hunter2"), V::Null, V::Null, V::Null, V::Null, V::Null];
        let (_control, mut sink) = database.sink(specs()).await;
        let mut writes = WriteSet::new(&specs(), false);
        row(&mut writes, 0, &good());
        sink.apply(&from(0), &writes, &Notes::default()).await.expect("written");
        for (code, column, value) in [
            ("23505", 1, text("hunter2")),
            ("22021", 1, text("hunter2\0")),
            ("22P02", 2, text("hunter2")),
            ("22001", 3, text("hunter2")),
            ("22P02", 4, V::Json("\x01{hunter2")),
            ("22P03", 0, text("hunter2")),
            ("23514", 5, text("hunter2 check")),
            ("P0001", 5, text("hunter2 raise")),
            ("OURS1", 5, text("hunter2 raise ours")),
            ("23503", 6, ours(8)),
            ("54000", 1, text("hunter2".to_owned() + &noise(9000))),
        ] {
            let mut values = good();
            values[0] = ours(2);
            values[1] = text("other");
            values[column] = value;
            let mut writes = WriteSet::new(&specs(), false);
            row(&mut writes, 0, &values);
            let error = sink.apply(&from(1), &writes, &Notes::default()).await.expect_err(code);
            says_nothing(&error);
            let shown = error.to_string();
            if code == "22P03" {
                assert!(matches!(error.kind, Kind::Data | Kind::Bug), "{error}");
                continue;
            }
            assert_eq!((error.kind, error.code.as_deref()), (Kind::Data, Some(code)), "{error}");
            assert!(shown.contains("public.t"), "{shown}");
        }
        let url = database.url.expose().replace("slackwater@", "nobody:hunter2@");
        let error = connect(&Secret::new(url)).await.expect_err("no such user");
        says_nothing(&error);
        assert_eq!(error.kind, Kind::Denied, "{error}");
        let error = connect(&Secret::new("postgres://somebody:hunter2@127.0.0.1:1/there")).await.expect_err("nobody");
        says_nothing(&error);
        assert_eq!(error.kind, Kind::Unreachable, "{error}");
        // Where it failed is said, without the password.
        assert!(error.doing.contains("127.0.0.1:1, database there, user somebody"), "{error}");
        let missing = database.url.expose().replace("slackwater@", "slackwater:hunter2@") + "_missing";
        let error = connect(&Secret::new(missing)).await.expect_err("no such database");
        says_nothing(&error);
        assert_eq!(error.kind, Kind::Denied, "{error}");
    })
    .await;
}

/// Text that does not compress.
fn noise(length: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        })
        .collect()
}
