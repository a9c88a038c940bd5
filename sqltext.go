package leakguard

import "strings"

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
	if sql != "" && !isSQLLetter(sql[0]) {
		start = skipSQLSpace(sql, 0)
	}
	if s := sql[start:]; harmlessVerb(s) {
		// With only white space behind it, the semicolon is the end. A comment
		// would not do: the semicolon may be in a string, as in ';--'.
		semi := strings.IndexByte(s, ';')
		if semi < 0 || isBlankSQL(s[semi+1:]) {
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
			equalFoldSQL(head[len(head)-len(before):], before) && equalFoldSQL(rest[:len(after)], after) {
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
	l := newSQLLexer(sql)
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
	l := newSQLLexer(sql)
	for {
		st, ok := l.stmt()
		if !ok {
			return steps
		}
		if st.step != 0 {
			steps = append(steps, txStep{st.step, sqlName(st.name)})
		}
	}
}

// pragmaName returns the lower-cased name of the first PRAGMA in sql for which
// classify sets textPragma, "" if there is none.
func pragmaName(sql string) string {
	l := newSQLLexer(sql)
	for {
		st, ok := l.stmt()
		if !ok {
			return ""
		}
		if st.class&textPragma != 0 {
			return sqlName(st.name)
		}
	}
}

// sqlStmt is what the head of one statement tells.
type sqlStmt struct {
	class textClass
	step  stepKind // 0 if the statement does not control transactions
	name  string   // savepoint or pragma name as written
}

type sqlTokenKind uint8

const (
	tokEnd    sqlTokenKind = iota
	tokWord                // keyword or bare identifier
	tokQuoted              // 'x', "x", `x` or [x]
	tokSemi
	tokDot
	tokEq
	tokLP
	tokOther
)

// sqlLexer splits a text into tokens and statements as SQLite's tokenizer and
// go-sqlite3's loop over the statements of a text do. It may accept what SQLite
// rejects, because SQLite runs nothing from a statement with an error on.
type sqlLexer struct {
	s    string
	pos  int          // where the next token is looked for
	kind sqlTokenKind // the current token
	text string
}

// newSQLLexer cuts sql at the first NUL byte, where SQLite stops reading.
func newSQLLexer(sql string) sqlLexer {
	if nul := strings.IndexByte(sql, 0); nul >= 0 {
		sql = sql[:nul]
	}
	return sqlLexer{s: sql}
}

// stmt reads the next statement that is not empty, to behind its semicolon.
func (l *sqlLexer) stmt() (st sqlStmt, ok bool) {
	for l.next(); l.kind == tokSemi; l.next() {
	}
	if l.kind == tokEnd {
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
	if schema := l.name(); l.kind == tokDot && sameSQLName(schema, "temp") {
		c = textTemp
	}
	return c, trigger
}

// analyze finds out whether ANALYZE makes the statistics tables of the temp
// schema, which it does for the schema's name, for a table in it and for its
// schema table (https://www.sqlite.org/lang_analyze.html).
func (l *sqlLexer) analyze() textClass {
	name := l.name()
	if sameSQLName(name, "temp") || sameSQLName(name, "sqlite_temp_schema") || sameSQLName(name, "sqlite_temp_master") {
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
	if l.kind == tokDot {
		l.next()
		schema, name = name, l.name()
	}
	if l.kind != tokEq && l.kind != tokLP {
		return 0, name
	}
	l.next()
	for _, p := range sessionNeutralPragmas {
		if sameSQLName(name, p) {
			return 0, name
		}
	}
	for _, p := range filePragmas {
		if sameSQLName(name, p) && !sameSQLName(schema, "temp") {
			return 0, name
		}
	}
	if sameSQLName(name, "journal_mode") && sameSQLName(l.text, "wal") {
		return 0, name // the one journal mode that is a property of the file
	}
	c = textPragma
	for _, p := range tempPragmas {
		if sameSQLName(name, p) {
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
	if l.kind != tokSemi && strings.IndexByte(l.s[l.pos:], ';') < 0 {
		l.pos = len(l.s) // the last statement, its rest does not matter
		return
	}
	semi, end := false, false
	for l.kind != tokEnd {
		if l.kind == tokSemi {
			if !trigger || end {
				// go-sqlite3 trims what follows before it goes on, of more
				// than SQLite takes for white space.
				l.s, l.pos = strings.TrimSpace(l.s[l.pos:]), 0
				return
			}
			semi, end = true, false
		} else {
			semi, end = false, semi && l.is("end")
		}
		l.next()
	}
}

// is reports whether the current token is the keyword (given in lower case).
func (l *sqlLexer) is(keyword string) bool {
	return l.kind == tokWord && equalFoldSQL(l.text, keyword)
}

// accept steps over the current token if it is the keyword.
func (l *sqlLexer) accept(keyword string) bool {
	if !l.is(keyword) {
		return false
	}
	l.next()
	return true
}

// name steps over the current token if it can be a name, and returns it as
// written. Most keywords can, and a 'string' too
// (https://www.sqlite.org/lang_keywords.html).
func (l *sqlLexer) name() string {
	if l.kind != tokWord && l.kind != tokQuoted {
		return ""
	}
	name := l.text
	l.next()
	return name
}

// next reads the next token, following sqlite3GetToken in SQLite's tokenize.c.
func (l *sqlLexer) next() {
	s := l.s
	i := skipSQLSpace(s, l.pos)
	if i == len(s) {
		l.kind, l.text, l.pos = tokEnd, "", i
		return
	}
	l.kind = tokOther
	j := i + 1
	switch c := s[i]; c {
	case ';':
		l.kind = tokSemi
	case '.':
		l.kind = tokDot
	case '=':
		l.kind = tokEq
		if j < len(s) && s[j] == '=' {
			j++
		}
	case '(':
		l.kind = tokLP
	case '\'', '"', '`':
		l.kind = tokQuoted
		j = skipQuoted(s, j, c)
	case '[':
		l.kind = tokQuoted
		if n := strings.IndexByte(s[j:], ']'); n >= 0 {
			j += n + 1
		} else {
			j = len(s)
		}
	case '$', '@', ':', '#':
		j = skipVariable(s, j)
	default:
		if !isSQLIdent(c) {
			break
		}
		if c < '0' || c > '9' {
			l.kind = tokWord
		}
		for j < len(s) && isSQLIdent(s[j]) {
			j++
		}
	}
	l.text, l.pos = s[i:j], j
}

// skipSQLSpace returns the index of the first byte from i on that is in neither
// white space nor a comment (https://www.sqlite.org/lang_comment.html). A
// vertical tab is white space to SQLite only after other white space and an
// error elsewhere, a byte order mark is white space everywhere.
func skipSQLSpace(s string, i int) int {
	for i < len(s) {
		switch c := s[i]; {
		case isSQLSpace(c):
			i++
		case c == '-' && strings.HasPrefix(s[i:], "--"):
			n := strings.IndexByte(s[i:], '\n')
			if n < 0 {
				return len(s)
			}
			i += n + 1
		case c == '/' && strings.HasPrefix(s[i:], "/*"):
			n := strings.Index(s[i+2:], "*/")
			if n < 0 {
				return len(s)
			}
			i += n + 4
		case c == 0xEF && strings.HasPrefix(s[i:], "\xEF\xBB\xBF"):
			i += 3
		default:
			return i
		}
	}
	return i
}

// skipQuoted returns the index behind the quote that closes the one before i.
// A doubled quote stands for itself.
func skipQuoted(s string, i int, quote byte) int {
	for {
		n := strings.IndexByte(s[i:], quote)
		if n < 0 {
			return len(s)
		}
		i += n + 1
		if i == len(s) || s[i] != quote {
			return i
		}
		i++
	}
}

// skipVariable returns the index behind the name of the parameter whose first
// byte is before i. As in Tcl, the name can have a part in parentheses, which
// holds anything but white space, quotes and semicolons too: $a(';).
// See https://www.sqlite.org/lang_expr.html#varparam.
func skipVariable(s string, i int) int {
	for n := 0; i < len(s); i++ {
		switch c := s[i]; {
		case isSQLIdent(c):
			n++
		case c == '(' && n > 0:
			for i++; i < len(s) && s[i] != ')' && !isSQLSpace(s[i]); i++ {
			}
			if i < len(s) && s[i] == ')' {
				i++
			}
			return i
		case c == ':' && i+1 < len(s) && s[i+1] == ':':
			i++
		default:
			return i
		}
	}
	return i
}

func isBlankSQL(s string) bool {
	for i := range len(s) {
		if !isSQLSpace(s[i]) {
			return false
		}
	}
	return true
}

func isSQLSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func isSQLLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isSQLQuote(c byte) bool { return c == '\'' || c == '"' || c == '`' || c == '[' }

// isSQLIdent reports whether c can be inside an identifier.
func isSQLIdent(c byte) bool {
	return isSQLLetter(c) || '0' <= c && c <= '9' || c == '_' || c == '$' || c >= 0x80
}

// equalFoldSQL reports whether s and lower are equal but for the case of A-Z in s.
// Unlike strings.EqualFold it leaves other letters alone, as SQLite does.
func equalFoldSQL(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if lowerSQL(s[i]) != lower[i] {
			return false
		}
	}
	return true
}

func lowerSQL(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// sameSQLName reports whether the name, as written, is lower (which needs no
// quotes). It is sqlName(name) == lower without an allocation.
func sameSQLName(name, lower string) bool {
	if len(name) == len(lower)+2 && isSQLQuote(name[0]) {
		name = name[1 : len(name)-1]
	}
	return equalFoldSQL(name, lower)
}

// sqlName returns the name, as written, in the form in which SQLite compares
// it: without its quotes and with A-Z in lower case.
func sqlName(name string) string {
	if len(name) >= 2 && isSQLQuote(name[0]) {
		quote := name[:1]
		name = name[1 : len(name)-1]
		if quote != "[" {
			name = strings.ReplaceAll(name, quote+quote, quote)
		}
	}
	b := []byte(name)
	for i, c := range b {
		b[i] = lowerSQL(c)
	}
	return string(b)
}
