package leakguard

import (
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// textClass is what a SQL text may do to the connection besides reading and
// writing rows.
//
// A set bit says "may": the caller asks SQLite what really happened. A clear
// bit is a promise for every text that returns no error. Three things are
// outside it, because the text does not show them: a failing statement whose
// conflict handling is ROLLBACK (https://www.sqlite.org/lang_conflict.html)
// ends the transaction, so ask after an error too; an index, trigger or
// statistics table made for a table that is itself temporary lands in the temp
// schema without saying so (the text that made the table has textTemp); and
// functions and virtual tables written by the application can do anything.
//
// Preparing a text does what textPragma stands for even if it is not executed:
// many pragmas act when they are compiled (https://www.sqlite.org/pragma.html).
type textClass uint16

const (
	textTx       textClass = 1 << iota // may begin or end a transaction or savepoint: ask autocommit afterwards
	textMulti                          // more than one statement
	textRollback                       // the single or first statement is a full ROLLBACK (not ROLLBACK TO)
	textCommit                         // the single or first statement is COMMIT or END
	textAttach                         // ATTACH or DETACH
	textTemp                           // may create or drop objects of the temp schema
	textPragma                         // PRAGMA with an argument that may change session state
	textEndsTx                         // some statement is COMMIT, END or a full ROLLBACK
	textHistory                        // may ask PRAGMA data_version, or store a text that does
)

// stepKind is a kind of transaction control statement, see
// https://www.sqlite.org/lang_transaction.html and
// https://www.sqlite.org/lang_savepoint.html.
type stepKind uint8

const (
	stepBegin stepKind = iota + 1
	stepCommit
	stepRollback
	stepSavepoint
	stepRelease
	stepRollbackTo
)

// txStep is one transaction control statement found in a text. The name is set
// for the three savepoint kinds only, in the form in which SQLite compares it:
// without quotes and with A-Z in lower case.
type txStep struct {
	kind stepKind
	name string
}

// classify reports what executing sql may do to the connection. It runs before
// every statement, so it does not allocate, and an ordinary query is let go
// after a look at its first word and a search for a semicolon.
func classify(sql string) textClass {
	if asksDataVersion(sql) {
		return classifyStmts(sql) | textHistory
	}
	start := 0
	if sql != "" && !sqltext.IsLetter(sql[0]) {
		start = sqltext.SkipSpace(sql, 0)
	}
	if s := sql[start:]; harmlessVerb(s) {
		// With only white space behind it, the semicolon is the end. A comment
		// would not do: the semicolon may be in a string, as in ';--'.
		semi := strings.IndexByte(s, ';')
		if semi < 0 || sqltext.IsBlank(s[semi+1:]) {
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
			sqltext.EqualFold(head[len(head)-len(before):], before) && sqltext.EqualFold(rest[:len(after)], after) {
			return true
		}
	}
}

// harmlessVerb reports whether the statement at the start of s is one that only
// reads and writes rows, or does not parse at all. It tells the statements of
// https://www.sqlite.org/lang.html apart by their first letters: INSERT, UPDATE,
// WITH, VALUES and VACUUM have one of their own (VACUUM leaves the transaction
// state as it found it), SELECT shares one with SAVEPOINT, DELETE with DETACH
// and DROP, REPLACE with RELEASE, REINDEX and ROLLBACK.
func harmlessVerb(s string) bool {
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

// classifyStmts is classify by the full lexer.
func classifyStmts(sql string) textClass {
	var c textClass
	l := sqlLexer{sqltext.NewLexer(sql)}
	for n := 1; ; n++ {
		st, ok := l.stmt()
		if !ok {
			return c
		}
		c |= st.class
		switch st.step {
		case stepCommit:
			c |= textEndsTx
			if n == 1 {
				c |= textCommit
			}
		case stepRollback:
			c |= textEndsTx
			if n == 1 {
				c |= textRollback
			}
		}
		if n == 2 {
			c |= textMulti
		}
	}
}

// txSteps returns the transaction control statements of sql in order. A text
// that fails half way ran only some of them.
func txSteps(sql string) []txStep {
	var steps []txStep
	l := sqlLexer{sqltext.NewLexer(sql)}
	for {
		st, ok := l.stmt()
		if !ok {
			return steps
		}
		if st.step != 0 {
			steps = append(steps, txStep{st.step, sqltext.Name(st.name)})
		}
	}
}

// pragmaName returns the lower-cased name of the first PRAGMA in sql for which
// classify sets textPragma, "" if there is none.
func pragmaName(sql string) string {
	l := sqlLexer{sqltext.NewLexer(sql)}
	for {
		st, ok := l.stmt()
		if !ok {
			return ""
		}
		if st.class&textPragma != 0 {
			return sqltext.Name(st.name)
		}
	}
}

// sqlStmt is what the head of one statement tells.
type sqlStmt struct {
	class textClass
	step  stepKind // 0 if the statement does not control transactions
	name  string   // savepoint or pragma name as written
}

// sqlLexer splits a text into statements, too, as go-sqlite3's loop over the
// statements of a text does.
type sqlLexer struct{ sqltext.Lexer }

// stmt reads the next statement that is not empty, to behind its semicolon.
func (l *sqlLexer) stmt() (st sqlStmt, ok bool) {
	for l.Next(); l.Kind == sqltext.Semicolon; l.Next() {
	}
	if l.Kind == sqltext.End {
		return st, false
	}
	explain := l.accept("explain")
	if explain && l.accept("query") {
		l.accept("plan")
	}
	trigger := false
	switch {
	case l.accept("begin"):
		st.class, st.step = textTx, stepBegin
	case l.accept("commit"), l.accept("end"):
		st.class, st.step = textTx, stepCommit
	case l.accept("rollback"):
		st.class, st.step = textTx, stepRollback
		if l.accept("transaction") && !l.is("to") {
			l.name()
		}
		if l.accept("to") {
			st.step = stepRollbackTo
			l.accept("savepoint")
			st.name = l.name()
		}
	case l.accept("savepoint"):
		st.class, st.step = textTx, stepSavepoint
		st.name = l.name()
	case l.accept("release"):
		st.class, st.step = textTx, stepRelease
		l.accept("savepoint")
		st.name = l.name()
	case l.accept("attach"), l.accept("detach"):
		st.class = textAttach
	case l.accept("create"):
		st.class, trigger = l.create()
	case l.accept("drop"):
		// A bare name is looked up in the temp schema first, and a table of any
		// schema takes the temp triggers on it along.
		st.class = textTemp
	case l.accept("analyze"):
		st.class = l.analyze()
	case l.accept("pragma"):
		st.class, st.name = l.pragma()
	}
	if explain && st.class&textPragma == 0 {
		// EXPLAIN runs nothing, but a pragma may have acted by then.
		st = sqlStmt{}
	}
	l.skipStmt(trigger)
	return st, true
}

// create reads CREATE up to the name of the object. A trigger's body has
// semicolons, so the caller must know it when looking for the end.
func (l *sqlLexer) create() (c textClass, trigger bool) {
	if l.accept("temp") || l.accept("temporary") {
		c = textTemp
	} else if !l.accept("unique") {
		l.accept("virtual")
	}
	trigger = l.is("trigger")
	l.name() // TABLE, INDEX, VIEW or TRIGGER
	if l.accept("if") && l.accept("not") {
		l.accept("exists")
	}
	if schema := l.name(); l.Kind == sqltext.Dot && sqltext.SameName(schema, "temp") {
		c = textTemp
	}
	return c, trigger
}

// analyze finds out whether ANALYZE makes the statistics tables of the temp
// schema, which it does for the schema's name, for a table in it and for its
// schema table (https://www.sqlite.org/lang_analyze.html).
func (l *sqlLexer) analyze() textClass {
	name := l.name()
	if sqltext.SameName(name, "temp") || sqltext.SameName(name, "sqlite_temp_schema") || sqltext.SameName(name, "sqlite_temp_master") {
		return textTemp
	}
	return 0
}

// pragma reads PRAGMA [schema.]name [= value | (value)]. Without a value a
// pragma reads a setting, or acts and leaves no setting behind. The name that
// is returned is the one as written.
func (l *sqlLexer) pragma() (c textClass, name string) {
	schema := ""
	name = l.name()
	if l.Kind == sqltext.Dot {
		l.Next()
		schema, name = name, l.name()
	}
	if l.Kind != sqltext.Equals && l.Kind != sqltext.Paren {
		return 0, name
	}
	l.Next()
	for _, p := range sessionNeutralPragmas {
		if sqltext.SameName(name, p) {
			return 0, name
		}
	}
	for _, p := range filePragmas {
		if sqltext.SameName(name, p) && !sqltext.SameName(schema, "temp") {
			return 0, name
		}
	}
	if sqltext.SameName(name, "journal_mode") && sqltext.SameName(l.Text, "wal") {
		return 0, name // the one journal mode that is a property of the file
	}
	c = textPragma
	for _, p := range tempPragmas {
		if sqltext.SameName(name, p) {
			c |= textTemp
		}
	}
	return c, name
}

// The pragmas below may have an argument and still leave the session as it was,
// see https://www.sqlite.org/pragma.html. Every other one counts as a setting of
// the connection, also one that SQLite does not know: the VFS may.
var (
	// The argument says what to list, check or do now.
	sessionNeutralPragmas = [...]string{
		"table_info", "table_xinfo", "table_list",
		"index_info", "index_xinfo", "index_list", "foreign_key_list",
		"database_list", "collation_list", "function_list", "module_list", "pragma_list", "compile_options",
		"integrity_check", "quick_check", "foreign_key_check",
		"wal_checkpoint", "optimize", "incremental_vacuum", "shrink_memory",
		"data_version", "freelist_count", "page_count",
	}
	// The argument is written to the database file. The temp schema has a file
	// of the connection's own. (Not encoding: until the file has a page it is the
	// connection's.)
	filePragmas = [...]string{"user_version", "application_id"}
	// Changing where temp tables are kept drops them, and a writable schema
	// lets INSERT and DELETE work on the temp schema's table.
	tempPragmas = [...]string{"temp_store", "temp_store_directory", "writable_schema"}
)

// skipStmt moves behind the semicolon that ends the statement. As for
// sqlite3_complete (https://www.sqlite.org/c3ref/complete.html), CREATE TRIGGER
// ends with the semicolon after "; END".
func (l *sqlLexer) skipStmt(trigger bool) {
	if l.Kind != sqltext.Semicolon && strings.IndexByte(l.SQL[l.Pos:], ';') < 0 {
		l.Pos = len(l.SQL) // the last statement, its rest does not matter
		return
	}
	semi, end := false, false
	for l.Kind != sqltext.End {
		if l.Kind == sqltext.Semicolon {
			if !trigger || end {
				// go-sqlite3 trims what follows before it goes on, of more
				// than SQLite takes for white space.
				l.SQL, l.Pos = strings.TrimSpace(l.SQL[l.Pos:]), 0
				return
			}
			semi, end = true, false
		} else {
			semi, end = false, semi && l.is("end")
		}
		l.Next()
	}
}

// is reports whether the current token is the keyword (given in lower case).
func (l *sqlLexer) is(keyword string) bool {
	return l.Kind == sqltext.Word && sqltext.EqualFold(l.Text, keyword)
}

// accept steps over the current token if it is the keyword.
func (l *sqlLexer) accept(keyword string) bool {
	if !l.is(keyword) {
		return false
	}
	l.Next()
	return true
}

// name steps over the current token if it can be a name, and returns it as
// written. Most keywords can, and a 'string' too
// (https://www.sqlite.org/lang_keywords.html).
func (l *sqlLexer) name() string {
	if l.Kind != sqltext.Word && l.Kind != sqltext.Quoted {
		return ""
	}
	name := l.Text
	l.Next()
	return name
}
