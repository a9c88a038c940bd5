package leakguard

import (
	"context"
	"database/sql/driver"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// session is what a connection carries that a new one of the same DSN would
// lack. The guard never closes a connection that carries any. Guarded by the gate.
type session struct {
	// forever is why this connection is kept, found at open or as a PRAGMA
	// passed by. Values are not compared: a PRAGMA set back counts all the same.
	forever string
	// attach and temp say that such a text passed by; whether something is
	// left of it is asked before a lease that was reaped is closed.
	attach, temp bool
	listed       bool // the tracker knows of attached databases

	path string
	file fileID // what path led to at open
}

// start looks at the fresh connection.
func (s *session) start(c *conn) {
	t := c.connector.traits
	filename := c.filename()
	switch {
	case t.memory || filename == "":
		s.forever = "in-memory or temporary database: closing it would destroy the data"
	case t.locked:
		s.forever = "locking_mode=EXCLUSIVE: a new connection would lack the lock"
		c.rec.KeepsLocks(true)
	case t.vfs != "" && t.vfs != "unix" && t.vfs != "win32":
		s.forever = "vfs=" + t.vfs + ": what closing means there is not known"
	case c.connector.showsHandles():
		s.forever = "its handle was given to a ConnectHook or an extension"
	}
	if s.forever == "" {
		s.path, s.file = filename, identify(filename)
		c.rec.OpenedFile(s.file.describe(filename, c.gate.Cache()))
		return
	}
	switch {
	case t.memory: // a name that is not a file's
		c.rec.OpenedFile(tracker.File{Cache: c.gate.Cache()})
	case filename != "":
		c.rec.OpenedFile(identify(filename).describe(filename, c.gate.Cache()))
	}
	c.rec.Keep(s.forever)
}

// filename returns the path of the main database, empty for one in memory.
func (c *conn) filename() string {
	if path, ok := c.db().Filename(); ok {
		return path
	}
	return c.inner.GetFilename("main")
}

// note takes up what a text that passed may have left, or asked of the connection's
// history.
func (s *session) note(c *conn, class sqltext.Class, query string) {
	if class&sqltext.History != 0 {
		c.connector.polled.Store(true)
	}
	if class&(sqltext.Attach|sqltext.Temp|sqltext.Pragma) == 0 {
		return
	}
	c.texts.drop() // what they mean may have changed
	if class&sqltext.Attach != 0 {
		s.attach = true
		c.listAttached()
		// With several files, what a name means changes with a CREATE or DROP in
		// one that a statement does not use, and SQLite does not look there.
		c.texts.stop()
		c.begins.dropBegin()
	}
	if class&sqltext.Temp != 0 {
		s.temp = true
	}
	if class&sqltext.Pragma != 0 {
		if s.forever == "" {
			s.keep(c, "PRAGMA "+sqltext.PragmaName(query)+" was set by the program")
		}
		if text := strings.ToLower(query); strings.Contains(text, "locking_mode") {
			c.rec.KeepsLocks(strings.Contains(text, "exclusive"))
		}
	}
}

func (s *session) keep(c *conn, why string) {
	s.forever = why
	c.rec.Keep(why)
}

// none reports whether the connection never carried anything that a new one would
// lack, without asking SQLite: a query would take a lock on the file for a moment.
func (s *session) none() bool { return s.forever == "" && !s.attach && !s.temp && s.file.known() }

// verify returns why the connection must not be closed, "" if it may. The caller
// holds the gate, and no transaction is open.
func (s *session) verify(c *conn) string {
	switch {
	case s.forever != "":
		return s.forever
	case s.attach && c.count("SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')") != 0:
		return "a database is attached"
	case s.temp && c.count("SELECT count(*) FROM temp.sqlite_schema") != 0:
		return "it has temporary objects"
	case !s.file.known():
		return "its file could not be examined"
	}
	if !c.connector.traits.names(s.path, s.file) {
		return "its DSN names another file by now"
	}
	s.attach, s.temp = false, false
	return ""
}

// count runs a query that returns one number; -1 if it fails.
func (c *conn) count(query string) int64 {
	rows, err := c.innerQuery(context.Background(), query, nil)
	if err != nil {
		return -1
	}
	defer rows.Close()
	var row [1]driver.Value
	if err := rows.Next(row[:]); err != nil {
		return -1
	}
	n, ok := row[0].(int64)
	if !ok {
		return -1
	}
	return n
}
