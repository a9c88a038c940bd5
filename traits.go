package leakguard

import (
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// cacheGates holds one lock for each shared cache of the process.
var cacheGates struct {
	sync.Mutex
	m map[string]*cacheGate
}

// cacheGate is what the gates of one shared cache have in common. The owners
// that are inside any of its connections keep the reaper out of all of them, and
// the reaper inside one keeps the owners of all waiting.
type cacheGate struct {
	// word counts the owners inside as a gate counts operations, and has its
	// bits reaping and awaited.
	word atomic.Uint64
	turn turn

	name string
	refs int // guarded by cacheGates
}

// enter waits for a reaper that is inside; false if done is closed first.
func (g *cacheGate) enter(done <-chan struct{}) bool {
	for {
		w := g.word.Load()
		if w&reaping == 0 {
			if g.word.CompareAndSwap(w, w+operation) {
				return true
			}
		} else if !g.turn.await(&g.word, done) {
			return false
		}
	}
}

// leave follows enter. Without a shared cache it does nothing.
func (g *cacheGate) leave() {
	if g != nil {
		g.word.Add(^(operation - 1))
	}
}

// try takes the cache for the reaper if nobody is inside any of its
// connections. They may belong to several trackers, so the channel that their
// owners wait for is nobody's bubble's.
func (g *cacheGate) try() bool {
	g.turn.prepare()
	return g.word.CompareAndSwap(0, reaping)
}

// release follows try. Without a shared cache it does nothing.
func (g *cacheGate) release() {
	if g != nil && g.word.And(^(reaping|awaited))&awaited != 0 {
		g.turn.end()
	}
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
