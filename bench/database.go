package main

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
)

const (
	keys        = 1000 // rows of the tables that are read or updated by key
	insertsInTx = 100
)

// schema is small enough to stay in the page cache: the cost of a wrapper is
// the same for a slow query, only harder to see.
const schema = `
CREATE TABLE kv (id INTEGER PRIMARY KEY, v TEXT NOT NULL);
CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
CREATE TABLE inserted (a INTEGER NOT NULL, b TEXT NOT NULL);
WITH RECURSIVE k(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM k WHERE id < 1000)
INSERT INTO kv SELECT id, printf('value-%06d', id) FROM k;
INSERT INTO counter SELECT id, 0 FROM kv;
`

// dsnFor is the same for every candidate. With synchronous=OFF no time is
// spent in fsync, so the ratios are the strictest case.
func dsnFor(file string) string {
	return "file:" + filepath.ToSlash(file) + "?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=5000"
}

// writeTemplate makes the database that every candidate gets a copy of.
func writeTemplate(file string) error {
	db, err := sql.Open("sqlite3", dsnFor(file))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.Exec(schema); err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	return db.Close() // the last close moves everything from the WAL to the file
}

func copyFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}
