package leakguard

import (
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// paramTraits is what traitsOf makes of the parameters, by net/url, which
// go-sqlite3 reads them with. What is in the path is left out.
func paramTraits(dsn string) traits {
	query := ""
	if i := strings.IndexByte(dsn, '?'); i >= 1 {
		query = dsn[i+1:]
	}
	query, _, _ = strings.Cut(query, "#")
	params, _ := url.ParseQuery(query)
	has := func(key, value string) bool {
		return slices.ContainsFunc(params[key], func(v string) bool { return strings.EqualFold(v, value) })
	}
	t := traits{vfs: params.Get("vfs"), busyTimeout: 5 * time.Second}
	for _, key := range []string{"_busy_timeout", "_timeout"} {
		if ms, err := strconv.ParseInt(params.Get(key), 10, 32); err == nil && params.Has(key) {
			t.busyTimeout = time.Duration(ms) * time.Millisecond
		}
	}
	t.keepsTexts = params.Has("_stmt_cache_size")
	t.locked = has("_locking_mode", "EXCLUSIVE") || has("_locking", "EXCLUSIVE")
	uri := strings.HasPrefix(dsn, "file:")
	t.shared = uri && has("cache", "shared")
	t.memory = uri && has("mode", "memory") || has("vfs", "memdb")
	return t
}

// traitsCheck holds for any DSN.
func traitsCheck(t *testing.T, dsn string) {
	t.Helper()
	got, want := traitsOf(dsn), paramTraits(dsn)
	want.memory = want.memory || got.path == "" || got.path == ":memory:"
	want.path = got.path
	if got != want {
		t.Fatalf("%q has\n%+v, want\n%+v", dsn, got, want)
	}
}

func TestTraitsOfRandomTokens(t *testing.T) {
	tokens := strings.Fields(`file:a.db? a.db? ? & & & & # = ; + % %6d %zz =memory =shared =SHARED =memdb =unix
		mode mode=memory mode=MEMORY m%6fde=memory mode=m%65mory mode= cache cache=shared cache=private
		vfs=memdb vfs=unix vfs=unix-none vfs= vfs _locking_mode=EXCLUSIVE _locking=exclusive _locking=NORMAL
		_busy_timeout=100 _busy_timeout=x _busy_timeout=99999999999 _timeout=200 _timeout= _timeout=-1 _timeout=+7
		_stmt_cache_size _stmt_cache_size=8 x=1 %=1 a=%`)
	random := rand.New(rand.NewPCG(1, 2)) // the same ones in every run
	for range 50_000 {
		var b strings.Builder
		b.WriteString(tokens[random.IntN(3)])
		for range random.IntN(8) {
			b.WriteString(tokens[random.IntN(len(tokens))])
			if random.IntN(3) > 0 {
				b.WriteByte('&')
			}
		}
		traitsCheck(t, b.String())
	}
}

// A DSN without escapes is read without an allocation.
func TestTraitsAllocateNothing(t *testing.T) {
	const dsn = "file:/var/lib/shop/shop.db?_journal_mode=WAL&_busy_timeout=5000&cache=private&mode=rwc&_locking_mode=NORMAL"
	if n := testing.AllocsPerRun(100, func() { traitsOf(dsn) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The registry gives one lock to connections of one shared cache, and none to
// the others.
func TestCacheGateRegistry(t *testing.T) {
	of := func(dsn, filename string) *gate.Shared { return traitsOf(dsn).cacheGate(filename) }
	if g := of("file:a.db", "/x/a.db"); g != nil {
		t.Error("a connection with a cache of its own got a lock")
	}
	a1, a2 := of("file:a.db?cache=shared", "/x/a.db"), of("file:./a.db?cache=shared&_fk=1", "/x/a.db")
	b := of("file:b.db?cache=shared", "/x/b.db")
	if a1 == nil || a1 != a2 || a1 == b {
		t.Errorf("locks: %p and %p for one file, %p for another", a1, a2, b)
	}
	m1, m2 := of("file:m?mode=memory&cache=shared", ""), of("file:m?cache=shared&mode=memory", "")
	n := of("file:n?mode=memory&cache=shared", "")
	if m1 == nil || m1 != m2 || m1 == n {
		t.Errorf("locks: %p and %p for one memory database, %p for another", m1, m2, n)
	}
	for _, g := range []*gate.Shared{a1, a2, b, m1, m2, n, nil} {
		g.Drop()
	}
	if g := of("file:a.db?cache=shared", "/x/a.db"); g == a1 {
		t.Error("a lock came back after its last connection")
	} else {
		g.Drop()
	}
}
