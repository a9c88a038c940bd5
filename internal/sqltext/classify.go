package sqltext

import "strings"

// Class is what a SQL text may do to the connection besides reading and
// writing rows.
//
// A set bit says "may": the caller asks SQLite what really happened. A clear
// bit is a promise for every text that returns no error. Three things are
// outside it, because the text does not show them: a failing statement whose
// conflict handling is ROLLBACK (https://www.sqlite.org/lang_conflict.html)
// ends the transaction, so ask after an error too; an index, trigger or
// statistics table made for a table that is itself temporary lands in the temp
// schema without saying so (the text that made the table has Temp); and
// functions and virtual tables written by the application can do anything.
//
// Preparing a text does what Pragma stands for even if it is not executed:
// many pragmas act when they are compiled (https://www.sqlite.org/pragma.html).
type Class uint16

const (
	Tx       Class = 1 << iota // may begin or end a transaction or savepoint: ask autocommit afterwards
	Multi                      // more than one statement
	Rollback                   // the single or first statement is a full ROLLBACK (not ROLLBACK TO)
	Commit                     // the single or first statement is COMMIT or END
	Attach                     // ATTACH or DETACH
	Temp                       // may create or drop objects of the temp schema
	Pragma                     // PRAGMA with an argument that may change session state
	EndsTx                     // some statement is COMMIT, END or a full ROLLBACK
	History                    // may ask PRAGMA data_version, or store a text that does
)

// Classify reports what executing sql may do to the connection. It runs before
// every statement, so it does not allocate, and an ordinary query is let go
// after a look at its first word and a search for a semicolon.
func Classify(sql string) Class {
	if asksDataVersion(sql) {
		return classifyStmts(sql) | History
	}
	start := 0
	if sql != "" && !IsLetter(sql[0]) {
		start = SkipSpace(sql, 0)
	}
	if s := sql[start:]; Harmless(s) {
		// With only white space behind it, the semicolon is the end. A comment
		// would not do: the semicolon may be in a string, as in ';--'.
		semi := strings.IndexByte(s, ';')
		if semi < 0 || IsBlank(s[semi+1:]) {
			return 0
		}
	}
	return classifyStmts(sql)
}

// asksDataVersion reports whether the name of PRAGMA data_version occurs in sql, in
// any case and also as that of the table-valued function. The value counts from the
// connection's opening, see https://www.sqlite.org/pragma.html#pragma_data_version.
func asksDataVersion(sql string) bool {
	const before, after = "data", "version"
	for rest := sql; ; {
		i := strings.IndexByte(rest, '_')
		if i < 0 {
			return false
		}
		head := rest[:i]
		rest = rest[i+1:]
		if len(head) >= len(before) && len(rest) >= len(after) &&
			EqualFold(head[len(head)-len(before):], before) && EqualFold(rest[:len(after)], after) {
			return true
		}
	}
}

// Harmless reports whether the statement at the start of s is one that only
// reads and writes rows, or does not parse at all. It tells the statements of
// https://www.sqlite.org/lang.html apart by their first letters: INSERT, UPDATE,
// WITH, VALUES and VACUUM have one of their own (VACUUM leaves the transaction
// state as it found it), SELECT shares one with SAVEPOINT, DELETE with DETACH
// and DROP, REPLACE with RELEASE, REINDEX and ROLLBACK.
func Harmless(s string) bool {
	if len(s) < len("WITH") {
		return false
	}
	switch s[0] | 0x20 {
	case 's':
		return s[1]|0x20 == 'e'
	case 'i', 'u', 'w', 'v':
		return true
	case 'd':
		return s[2]|0x20 == 'l'
	case 'r':
		return s[2]|0x20 == 'p'
	}
	return false
}

// classifyStmts is Classify by the full lexer.
func classifyStmts(sql string) Class {
	var c Class
	l := sqlLexer{NewLexer(sql)}
	for n := 1; ; n++ {
		st, ok := l.stmt()
		if !ok {
			return c
		}
		c |= st.class
		switch st.step {
		case StepCommit:
			c |= EndsTx
			if n == 1 {
				c |= Commit
			}
		case StepRollback:
			c |= EndsTx
			if n == 1 {
				c |= Rollback
			}
		}
		if n == 2 {
			c |= Multi
		}
	}
}
