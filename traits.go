package leakguard

import (
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
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
	params, _ := url.ParseQuery(query) // what cannot be parsed fails in go-sqlite3
	has := func(key, value string) bool {
		return slices.ContainsFunc(params[key], func(v string) bool { return strings.EqualFold(v, value) })
	}
	var t traits
	t.vfs = params.Get("vfs")
	t.busyTimeout = 5 * time.Second
	for _, key := range []string{"_busy_timeout", "_timeout"} { // the later one counts
		if params.Has(key) {
			ms, err := strconv.ParseInt(params.Get(key), 10, 32)
			if err == nil {
				t.busyTimeout = time.Duration(ms) * time.Millisecond
			}
		}
	}
	t.keepsTexts = params.Has("_stmt_cache_size")
	t.locked = has("_locking_mode", "EXCLUSIVE") || has("_locking", "EXCLUSIVE")
	if rest, uri := strings.CutPrefix(path, "file:"); uri {
		t.memory = has("mode", "memory")
		t.shared = has("cache", "shared")
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
	t.memory = t.memory || path == "" || path == ":memory:" || has("vfs", "memdb")
	return t
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

// cacheGates holds one lock for each shared cache of the process.
var cacheGates struct {
	sync.Mutex
	m map[string]*cacheGate
}

type cacheGate struct {
	sync.RWMutex
	name string
	refs int
}

// cacheGate returns the lock of the connection's shared cache, nil if its
// cache is its own. Giving two caches one lock would only make the reaper try
// later.
func (t traits) cacheGate(filename string) *cacheGate {
	if !t.shared {
		return nil
	}
	name := filename
	if name == "" {
		name = "memory:" + t.path
	}
	cacheGates.Lock()
	defer cacheGates.Unlock()
	g := cacheGates.m[name]
	if g == nil {
		g = &cacheGate{name: name}
		if cacheGates.m == nil {
			cacheGates.m = make(map[string]*cacheGate)
		}
		cacheGates.m[name] = g
	}
	g.refs++
	return g
}

// drop forgets the lock with its last connection.
func (g *cacheGate) drop() {
	if g == nil {
		return
	}
	cacheGates.Lock()
	defer cacheGates.Unlock()
	if g.refs--; g.refs == 0 {
		delete(cacheGates.m, g.name)
	}
}
