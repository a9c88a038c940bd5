package leakguard

import "testing"

// Of a text with several statements only the first is prepared, so the others
// neither end the transaction nor open a level.
func TestPreparedTextIsItsFirstStatement(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	tx := g.begin(t)
	before := g.last().txn.id
	for _, text := range []string{"INSERT INTO t VALUES(1); COMMIT", "INSERT INTO t VALUES(2); SAVEPOINT x"} {
		s := prepare(t, tx, text)
		if _, err := s.Exec(); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if id := g.last().txn.id; id != before {
		t.Errorf("transaction %d became %d", before, id)
	}
	if d := g.connector.Stats().ActiveConnectionDetails; len(d) != 1 || d[0].TransactionLevel != 1 {
		t.Errorf("%+v, want one connection in a transaction of level 1", d)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if n := g.rows(t); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}
