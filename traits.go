package leakguard

import (
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// traits are what a DSN says about its database.
type traits struct {
	path   string // without scheme, authority, parameters and fragment
	memory bool   // in memory or temporary: closing it destroys the data
	shared bool   // shared cache
	vfs    string
	locked bool // locking_mode=EXCLUSIVE
	// busyTimeout is what go-sqlite3 sets.
	busyTimeout time.Duration
	// keepsTexts: the DSN says itself which statements are kept prepared.
	keepsTexts bool
}

// traitsOf reads a DSN as go-sqlite3 and SQLite do. Where they differ on a key
// given twice, either value counts. See https://www.sqlite.org/uri.html and
// https://www.sqlite.org/inmemorydb.html.
func traitsOf(dsn string) traits {
	path, query := dsn, ""
	if i := strings.IndexByte(dsn, '?'); i >= 1 {
		path, query = dsn[:i], dsn[i+1:]
	}
	query, _, _ = strings.Cut(query, "#")
	var t traits
	var vfs, busyTimeout, timeout dsnValue
	var memory, shared, memdb bool
	// Most have nothing to unescape, and then nothing is allocated.
	plain := strings.IndexByte(query, '%') < 0 && strings.IndexByte(query, '+') < 0 && strings.IndexByte(query, ';') < 0
	for query != "" {
		var segment string
		segment, query, _ = strings.Cut(query, "&")
		key, value, _ := strings.Cut(segment, "=")
		if !plain {
			var ok bool
			if key, value, ok = dsnUnescaped(segment); !ok {
				continue
			}
		}
		switch key {
		case "mode":
			memory = memory || strings.EqualFold(value, "memory")
		case "cache":
			shared = shared || strings.EqualFold(value, "shared")
		case "vfs":
			vfs.first(value)
			memdb = memdb || strings.EqualFold(value, "memdb")
		case "_locking_mode", "_locking":
			t.locked = t.locked || strings.EqualFold(value, "EXCLUSIVE")
		case "_busy_timeout":
			busyTimeout.first(value)
		case "_timeout":
			timeout.first(value)
		case "_stmt_cache_size":
			t.keepsTexts = true
		}
	}
	t.vfs = vfs.text
	t.busyTimeout = 5 * time.Second
	for _, v := range [...]dsnValue{busyTimeout, timeout} { // the later one counts
		if !v.given {
			continue
		}
		if ms, err := strconv.ParseInt(v.text, 10, 32); err == nil {
			t.busyTimeout = time.Duration(ms) * time.Millisecond
		}
	}
	if rest, uri := strings.CutPrefix(path, "file:"); uri {
		t.memory, t.shared = memory, shared
		path, _, _ = strings.Cut(rest, "#")
		if authority, ok := strings.CutPrefix(path, "//"); ok {
			if i := strings.IndexByte(authority, '/'); i >= 0 {
				path = authority[i:]
			}
		}
		if unescaped, err := url.PathUnescape(path); err == nil {
			path = unescaped
		}
	}
	t.path = path
	t.memory = t.memory || path == "" || path == ":memory:" || memdb
	return t
}

// dsnValue is the value of a key that may be given several times: the first one.
type dsnValue struct {
	text  string
	given bool
}

func (v *dsnValue) first(text string) {
	if !v.given {
		v.text, v.given = text, true
	}
}

// dsnUnescaped reads one parameter as net/url's ParseQuery does, hence
// go-sqlite3: what that rejects is left out here and fails there.
func dsnUnescaped(segment string) (key, value string, ok bool) {
	if strings.IndexByte(segment, ';') >= 0 {
		return "", "", false
	}
	key, value, _ = strings.Cut(segment, "=")
	key, err := url.QueryUnescape(key)
	if err != nil {
		return "", "", false
	}
	value, err = url.QueryUnescape(value)
	return key, value, err == nil
}

// file returns the absolute path of the database file, "" for one in memory.
func (t traits) file() string {
	if t.memory {
		return ""
	}
	path, err := filepath.Abs(t.path)
	if err != nil {
		return t.path
	}
	return path
}

// names reports whether the DSN names this file now, with the working directory
// and links as they are.
func (t traits) names(path string, file fileID) bool {
	resolved, err := filepath.EvalSymlinks(t.file())
	return err == nil && resolved == path && identify(resolved).same(file)
}

// cacheGate returns what the gates of the connection's shared cache have in common, nil
// if its cache is its own. Taking two caches for one would only make the reaper try later.
func (t traits) cacheGate(filename string) *gate.Shared {
	if !t.shared {
		return nil
	}
	name := filename
	if name == "" {
		name = "memory:" + t.path
	}
	return gate.SharedOf(name)
}
