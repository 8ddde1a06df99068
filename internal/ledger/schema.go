package ledger

import "strconv"

// applicationID is in the header of every ledger: "MHLG".
const applicationID = 0x4d484c47

// migrations bring a ledger from the version that is their index to the next.
// They are never changed once released, only added to.
var migrations = []string{`
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE account (
  id     INTEGER PRIMARY KEY,
  name   TEXT NOT NULL UNIQUE,        -- mail.AccountKey
  source INTEGER NOT NULL DEFAULT 0   -- 1: mail was copied from it into this archive
);

-- A mailbox of the archive, with its anchor on disk.
CREATE TABLE mailbox (
  id     INTEGER PRIMARY KEY,
  name   TEXT NOT NULL UNIQUE,
  open   INTEGER NOT NULL DEFAULT 0,
  length INTEGER NOT NULL DEFAULT 0,
  mtime  INTEGER NOT NULL DEFAULT 0   -- ns since 1970, 0: none
);

-- A mailbox of an account.
CREATE TABLE box (
  id      INTEGER PRIMARY KEY,
  account INTEGER NOT NULL,
  name    TEXT NOT NULL,
  cursor  TEXT NOT NULL DEFAULT '',
  UNIQUE (account, name)
);

CREATE TABLE flags (
  id    INTEGER PRIMARY KEY,
  value TEXT NOT NULL UNIQUE
);

-- id = mailbox << 40 | number: the messages of a mailbox are one range.
CREATE TABLE message (
  id         INTEGER PRIMARY KEY,
  digest     BLOB NOT NULL,
  header     BLOB NOT NULL,
  octets     INTEGER NOT NULL,
  wire       INTEGER NOT NULL,
  date       INTEGER NOT NULL,        -- INTERNALDATE, ns since 1970; 0: none
  source     INTEGER NOT NULL,        -- where that came from: index into dateSources
  flags      INTEGER NOT NULL,
  inexact    INTEGER NOT NULL,
  place      TEXT NOT NULL,           -- '': missing from the archive
  suspicious TEXT,
  object     TEXT,
  archived   INTEGER NOT NULL         -- ms since 1970
);

CREATE INDEX message_missing ON message (id) WHERE place = '';

-- id = box << 40 | number: the claims of a mailbox at a server are one range.
CREATE TABLE claim (
  id          INTEGER PRIMARY KEY,
  uidvalidity INTEGER NOT NULL,
  uid         NOT NULL,               -- integer where it is a plain number
  message     INTEGER NOT NULL,
  size        INTEGER NOT NULL,
  flags       INTEGER NOT NULL,
  fetched     INTEGER NOT NULL,
  gone        INTEGER NOT NULL,       -- ms since 1970, 0: it is there
  gone_by     INTEGER NOT NULL        -- 0 nobody, 1 server, 2 us
);
CREATE INDEX claim_live ON claim (message) WHERE gone = 0;

CREATE TABLE deletion (
  id      INTEGER PRIMARY KEY,
  claim   INTEGER NOT NULL,
  message INTEGER NOT NULL,
  rule    TEXT NOT NULL,
  mode    TEXT NOT NULL,
  at      INTEGER NOT NULL,           -- ms since 1970
  state   INTEGER NOT NULL            -- see state.go
);
CREATE INDEX deletion_claim ON deletion (claim);
CREATE INDEX deletion_open ON deletion (claim) WHERE state = 0;

CREATE TABLE upload (
  id          INTEGER PRIMARY KEY,
  box         INTEGER NOT NULL,       -- destination
  grp         INTEGER NOT NULL,       -- messages sent in one command
  uidvalidity INTEGER NOT NULL,
  uidnext     INTEGER NOT NULL,
  message     INTEGER NOT NULL,
  digest      BLOB NOT NULL,          -- of what was sent
  at          INTEGER NOT NULL,       -- ms since 1970
  state       INTEGER NOT NULL,       -- see state.go
  uid         NOT NULL DEFAULT '',
  altered     BLOB                    -- digest of what the destination made of it
);
CREATE INDEX upload_box ON upload (box, state);
`, `
CREATE INDEX message_object ON message (object) WHERE object IS NOT NULL;
`}

// idBits is how many bits of a message's or claim's id number it within its
// mailbox.
const idBits = 40

func firstID(mailbox int64) int64 { return mailbox << idBits }
func lastID(mailbox int64) int64  { return mailbox<<idBits | (1<<idBits - 1) }

// migrate brings the schema to the current version, in one transaction.
func (d *db) migrate(from int64) error {
	if from == int64(len(migrations)) {
		return nil
	}
	return d.tx(func() error {
		for _, m := range migrations[from:] {
			if err := d.exec(m); err != nil {
				return err
			}
		}
		if err := d.exec("PRAGMA application_id = " + strconv.Itoa(applicationID)); err != nil {
			return err
		}
		return d.exec("PRAGMA user_version = " + strconv.Itoa(len(migrations)))
	})
}
