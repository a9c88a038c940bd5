package sqltext

import "strings"

// StepKind is a kind of transaction control statement, see
// https://www.sqlite.org/lang_transaction.html and
// https://www.sqlite.org/lang_savepoint.html.
type stepKind uint8

const (
	StepBegin stepKind = iota + 1
	StepCommit
	StepRollback
	StepSavepoint
	StepRelease
	StepRollbackTo
)

// Step is one transaction control statement found in a text. The name is set
// for the three savepoint kinds only, in the form in which SQLite compares it:
// without quotes and with A-Z in lower case.
type Step struct {
	Kind stepKind
	Name string
}

// Steps returns the transaction control statements of sql in order. A text
// that fails half way ran only some of them.
func Steps(sql string) []Step {
	var steps []Step
	l := sqlLexer{NewLexer(sql)}
	for {
		st, ok := l.stmt()
		if !ok {
			return steps
		}
		if st.step != 0 {
			steps = append(steps, Step{st.step, Name(st.name)})
		}
	}
}

// sqlStmt is what the head of one statement tells.
type sqlStmt struct {
	class Class
	step  stepKind // 0 if the statement does not control transactions
	name  string   // savepoint or pragma name as written
}

// sqlLexer splits a text into statements, too, as go-sqlite3's loop over the
// statements of a text does.
type sqlLexer struct{ Lexer }

// stmt reads the next statement that is not empty, to behind its semicolon.
func (l *sqlLexer) stmt() (st sqlStmt, ok bool) {
	for l.Next(); l.Kind == Semicolon; l.Next() {
	}
	if l.Kind == End {
		return st, false
	}
	explain := l.accept("explain")
	if explain && l.accept("query") {
		l.accept("plan")
	}
	trigger := false
	switch {
	case l.accept("begin"):
		st.class, st.step = Tx, StepBegin
	case l.accept("commit"), l.accept("end"):
		st.class, st.step = Tx, StepCommit
	case l.accept("rollback"):
		st.class, st.step = Tx, StepRollback
		if l.accept("transaction") && !l.is("to") {
			l.name()
		}
		if l.accept("to") {
			st.step = StepRollbackTo
			l.accept("savepoint")
			st.name = l.name()
		}
	case l.accept("savepoint"):
		st.class, st.step = Tx, StepSavepoint
		st.name = l.name()
	case l.accept("release"):
		st.class, st.step = Tx, StepRelease
		l.accept("savepoint")
		st.name = l.name()
	case l.accept("attach"), l.accept("detach"):
		st.class = Attach
	case l.accept("create"):
		st.class, trigger = l.create()
	case l.accept("drop"):
		// A bare name is looked up in the temp schema first, and a table of any
		// schema takes the temp triggers on it along.
		st.class = Temp
	case l.accept("analyze"):
		st.class = l.analyze()
	case l.accept("pragma"):
		st.class, st.name = l.pragma()
	}
	if explain && st.class&Pragma == 0 {
		// EXPLAIN runs nothing, but a pragma may have acted by then.
		st = sqlStmt{}
	}
	l.skipStmt(trigger)
	return st, true
}

// create reads CREATE up to the name of the object. A trigger's body has
// semicolons, so the caller must know it when looking for the end.
func (l *sqlLexer) create() (c Class, trigger bool) {
	if l.accept("temp") || l.accept("temporary") {
		c = Temp
	} else if !l.accept("unique") {
		l.accept("virtual")
	}
	trigger = l.is("trigger")
	l.name() // TABLE, INDEX, VIEW or TRIGGER
	if l.accept("if") && l.accept("not") {
		l.accept("exists")
	}
	if schema := l.name(); l.Kind == Dot && SameName(schema, "temp") {
		c = Temp
	}
	return c, trigger
}

// analyze finds out whether ANALYZE makes the statistics tables of the temp
// schema, which it does for the schema's name, for a table in it and for its
// schema table (https://www.sqlite.org/lang_analyze.html).
func (l *sqlLexer) analyze() Class {
	name := l.name()
	if SameName(name, "temp") || SameName(name, "sqlite_temp_schema") || SameName(name, "sqlite_temp_master") {
		return Temp
	}
	return 0
}

// skipStmt moves behind the semicolon that ends the statement. As for
// sqlite3_complete (https://www.sqlite.org/c3ref/complete.html), CREATE TRIGGER
// ends with the semicolon after "; END".
func (l *sqlLexer) skipStmt(trigger bool) {
	if l.Kind != Semicolon && strings.IndexByte(l.SQL[l.Pos:], ';') < 0 {
		l.Pos = len(l.SQL) // the last statement, its rest does not matter
		return
	}
	semi, end := false, false
	for l.Kind != End {
		if l.Kind == Semicolon {
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
	return l.Kind == Word && EqualFold(l.Text, keyword)
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
	if l.Kind != Word && l.Kind != Quoted {
		return ""
	}
	name := l.Text
	l.Next()
	return name
}
