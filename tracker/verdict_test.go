package tracker

import (
	"testing"
	"time"
)

// Each criterion is tested at its limit, just below it, with the limit off, and
// with each of its other conditions turned round.

func TestTxTimedOut(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit time.Duration
		level int
		age   time.Duration
		busy  bool
		want  bool
	}{
		{"at the limit", time.Minute, 1, time.Minute, false, true},
		{"running work too", time.Minute, 1, time.Hour, true, true},
		{"nested", time.Minute, 3, time.Hour, false, true},
		{"just below", time.Minute, 1, time.Minute - 1, false, false},
		{"no transaction", time.Minute, 0, time.Hour, false, false},
		{"off", 0, 1, time.Hour, false, false},
		{"off and new", 0, 1, 0, false, false},
	} {
		p, r := Policy{TxTimeout: c.limit}, Record{TransactionLevel: c.level, TxAge: c.age, Busy: c.busy, Leased: true}
		if got := txTimedOut(&p, &r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTxOverLimit(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit time.Duration
		level int
		age   time.Duration
		busy  bool
		want  bool
	}{
		{"at the limit", time.Minute, 1, time.Minute, false, true},
		{"running work too", time.Minute, 1, time.Hour, true, true},
		{"nested", time.Minute, 3, time.Hour, false, true},
		{"just below", time.Minute, 1, time.Minute - 1, false, false},
		{"no transaction", time.Minute, 0, time.Hour, false, false},
		{"off", 0, 1, time.Hour, false, false},
		{"off and new", 0, 1, 0, false, false},
	} {
		p, r := Policy{TxLimit: c.limit}, Record{TransactionLevel: c.level, TxAge: c.age, Busy: c.busy, Leased: true}
		if got := txOverLimit(&p, &r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTxRests(t *testing.T) {
	for _, c := range []struct {
		name        string
		limit, idle time.Duration
		busy, want  bool
	}{
		{"at a tenth", 10 * time.Minute, time.Minute, false, true},
		{"just below", 10 * time.Minute, time.Minute - 1, false, false},
		{"running", 10 * time.Minute, time.Hour, true, false},
		{"less than can be told", time.Nanosecond, 0, false, true},
	} {
		p, r := Policy{TxTimeout: c.limit}, Record{TransactionLevel: 1, Idle: c.idle, Busy: c.busy}
		if got := txRests(&p, &r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestLeaseForgotten(t *testing.T) {
	for _, c := range []struct {
		name         string
		limit, idle  time.Duration
		leased, busy bool
		want         bool
	}{
		{"at the limit", time.Minute, time.Minute, true, false, true},
		{"just below", time.Minute, time.Minute - 1, true, false, false},
		{"in the pool", time.Minute, time.Hour, false, false, false},
		{"running", time.Minute, time.Hour, true, true, false},
		{"off", 0, time.Hour, true, false, false},
		{"off and new", 0, 0, true, false, false},
	} {
		p, r := Policy{LeakAfter: c.limit}, Record{Idle: c.idle, Leased: c.leased, Busy: c.busy}
		if got := leaseForgotten(&p, &r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTxInPool(t *testing.T) {
	for _, c := range []struct {
		name          string
		leakAfter     time.Duration
		r             Record
		in, forgotten bool
	}{
		{"a second", time.Minute, Record{TransactionLevel: 1, Idle: time.Second}, true, false},
		{"just below", time.Minute, Record{TransactionLevel: 1, Idle: time.Second - 1}, false, false},
		{"leak_after", time.Minute, Record{TransactionLevel: 1, Idle: time.Minute}, true, true},
		{"just below leak_after", time.Minute, Record{TransactionLevel: 1, Idle: time.Minute - 1}, true, false},
		{"leak_after off", 0, Record{TransactionLevel: 1, Idle: time.Hour}, true, false},
		{"leak_after below a second", time.Millisecond, Record{TransactionLevel: 1, Idle: time.Second - 1}, false, false},
		{"leased", time.Minute, Record{TransactionLevel: 1, Idle: time.Hour, Leased: true}, false, false},
		{"busy", time.Minute, Record{TransactionLevel: 1, Idle: time.Hour, Busy: true}, false, false},
		{"no transaction", time.Minute, Record{Idle: time.Hour}, false, false},
	} {
		p := Policy{LeakAfter: c.leakAfter}
		if got := txInPool(&c.r); got != c.in {
			t.Errorf("%s: in pool %v", c.name, got)
		}
		if got := txInPoolForgotten(&p, &c.r); got != c.forgotten {
			t.Errorf("%s: forgotten %v", c.name, got)
		}
	}
}

func TestIdleTooLong(t *testing.T) {
	used := Record{Accesses: 1, Idle: time.Minute}
	for _, c := range []struct {
		name  string
		limit time.Duration
		turn  func(r *Record)
		want  bool
	}{
		{"at the limit", time.Minute, func(r *Record) {}, true},
		{"just below", time.Minute, func(r *Record) { r.Idle-- }, false},
		{"off", 0, func(r *Record) { r.Idle = time.Hour }, false},
		{"leased", time.Minute, func(r *Record) { r.Leased = true }, false},
		{"busy", time.Minute, func(r *Record) { r.Busy = true }, false},
		{"never used", time.Minute, func(r *Record) { r.Accesses = 0 }, false},
		{"in a transaction", time.Minute, func(r *Record) { r.TransactionLevel = 1 }, false},
	} {
		p, r := Policy{MaxIdle: c.limit}, used
		c.turn(&r)
		if got := idleTooLong(&p, &r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestExpired(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit time.Duration
		r     Record
		want  bool
	}{
		{"at its own lifetime", time.Hour, Record{expiring: 59 * time.Minute, lifetime: 59 * time.Minute, Accesses: 1}, true},
		{"leased and busy", time.Hour, Record{expiring: time.Hour, lifetime: time.Hour, Accesses: 1, Leased: true, Busy: true}, true},
		{"just below", time.Hour, Record{expiring: 59*time.Minute - 1, lifetime: 59 * time.Minute, Accesses: 1}, false},
		{"old, but refreshed", time.Hour, Record{Age: 3 * time.Hour, expiring: time.Minute, lifetime: time.Hour, Accesses: 1}, false},
		{"never used", time.Hour, Record{expiring: 2 * time.Hour, lifetime: time.Hour}, false},
		{"off", 0, Record{expiring: time.Hour, Accesses: 1}, false},
	} {
		p := Policy{MaxLifetime: c.limit}
		if got := expired(&p, &c.r); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTooManyAccesses(t *testing.T) {
	for _, c := range []struct {
		name  string
		p     Policy
		r     Record
		wants bool
	}{
		{"at the limit", Policy{MaxAccess: 3, Expire: Close}, Record{Accesses: 3}, true},
		{"just below", Policy{MaxAccess: 3, Expire: Close}, Record{Accesses: 2}, false},
		{"since it was refreshed", Policy{MaxAccess: 3, Expire: Close}, Record{Accesses: 10, renewed: 7}, true},
		{"not since then", Policy{MaxAccess: 3, Expire: Close}, Record{Accesses: 10, renewed: 8}, false},
		{"check-in's", Policy{MaxAccess: 3}, Record{Accesses: 10}, false},
		{"off", Policy{Expire: Close}, Record{Accesses: 10}, false},
	} {
		if got := tooManyAccesses(&c.p, &c.r); got != c.wants {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestTooManyStatements(t *testing.T) {
	for _, c := range []struct {
		limit int64
		open  int
		want  bool
	}{{3, 3, true}, {3, 4, true}, {3, 2, false}, {1, 0, false}, {0, 0, false}, {0, 1000, false}} {
		p, r := Policy{MaxStatements: c.limit}, Record{statements: c.open}
		if got := tooManyStatements(&p, &r); got != c.want {
			t.Errorf("%d of %d: %v", c.open, c.limit, got)
		}
	}
}

func TestRowsForgotten(t *testing.T) {
	for _, c := range []struct {
		limit, idle time.Duration
		want        bool
	}{{time.Minute, time.Minute, true}, {time.Minute, time.Minute - 1, false}, {0, time.Hour, false}, {0, 0, false}} {
		if got := rowsForgotten(&Policy{LeakAfter: c.limit}, c.idle); got != c.want {
			t.Errorf("%v of %v: %v", c.idle, c.limit, got)
		}
	}
}

func TestNextDue(t *testing.T) {
	const ms, s, m = time.Millisecond, time.Second, time.Minute
	p := Policy{MaxLifetime: 30 * m, MaxIdle: 5 * m, LeakAfter: 4 * m, TxTimeout: 10 * m, CheckInterval: time.Hour}
	for _, c := range []struct {
		name string
		p    Policy
		r    Record
		want time.Duration
	}{
		{"idle", p, Record{Idle: m, lifetime: 30 * m}, 4 * m},
		{"leased", p, Record{Leased: true, Idle: m, lifetime: 30 * m}, 3 * m},
		{"leased in a transaction", p, Record{Leased: true, TransactionLevel: 1, Idle: m, TxAge: 9 * m, lifetime: 30 * m}, m},
		{"in a transaction, idleness first", p, Record{Leased: true, TransactionLevel: 1, Idle: 3 * m, TxAge: 6 * m, lifetime: 30 * m}, m},
		{"new transaction in the pool", p, Record{TransactionLevel: 1, lifetime: 30 * m}, s},
		{"half a second in the pool", p, Record{TransactionLevel: 1, Idle: s / 2, lifetime: 30 * m}, s / 2},
		{"transaction in the pool", p, Record{TransactionLevel: 1, Idle: m, TxAge: m, lifetime: 30 * m}, 3 * m},
		{"leased: no second", p, Record{Leased: true, TransactionLevel: 1, lifetime: 30 * m}, 4 * m},
		{"old", p, Record{Leased: true, Age: time.Hour, expiring: 29 * m, lifetime: 30*m - s}, m - s},
		{"tx_limit", Policy{TxTimeout: 10 * m, TxLimit: 4 * m, CheckInterval: time.Hour}, Record{Leased: true, TransactionLevel: 1, TxAge: m}, 3 * m},
		{"all past", p, Record{Leased: true, TransactionLevel: 1, Idle: 4 * m, TxAge: 10 * m, expiring: 30 * m, lifetime: 30 * m}, 15 * s},
		{"at work beyond tx_timeout", p, Record{Leased: true, TransactionLevel: 1, TxAge: 20 * m, lifetime: 30 * m}, 15 * s},
		{"soon at rest for long enough", p, Record{Leased: true, TransactionLevel: 1, Idle: m - s, TxAge: 20 * m, lifetime: 30 * m}, s},
		{"tx_limit soon", Policy{TxTimeout: 10 * m, TxLimit: 20 * m, CheckInterval: time.Hour}, Record{Leased: true, TransactionLevel: 1, TxAge: 20*m - s}, s},
		{"a short tx_timeout", Policy{TxTimeout: 200 * ms, CheckInterval: time.Hour}, Record{Leased: true, TransactionLevel: 1, TxAge: m}, 10 * ms},
		{"a very short one", Policy{TxTimeout: 20 * ms, CheckInterval: time.Hour}, Record{Leased: true, TransactionLevel: 1, TxAge: m}, 10 * ms},
		{"soon at rest, but not looked at oftener", Policy{TxTimeout: 200 * ms, CheckInterval: time.Hour}, Record{Leased: true, TransactionLevel: 1, Idle: 19 * ms, TxAge: m}, 10 * ms},
		{"check_interval first", Policy{LeakAfter: 4 * m, CheckInterval: m}, Record{Leased: true}, m},
		{"check_interval before rest", Policy{TxTimeout: 10 * m, CheckInterval: s}, Record{Leased: true, TransactionLevel: 1, TxAge: 20 * m}, s},
		{"all off", Policy{CheckInterval: m}, Record{Leased: true, TransactionLevel: 1}, m},
		{"all off, in the pool", Policy{CheckInterval: m}, Record{expiring: time.Hour}, m},
	} {
		if got := nextDue(&c.p, &c.r); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestPeriod(t *testing.T) {
	for _, c := range []struct {
		p    Policy
		want time.Duration
	}{
		{DefaultPolicy(), 2500 * time.Millisecond},
		{unreported(), time.Minute},
		{Policy{CheckInterval: time.Minute, ReportAfter: 2 * time.Second}, 500 * time.Millisecond},
		{Policy{CheckInterval: time.Minute}, time.Minute},
		{Policy{CheckInterval: time.Minute, LeakAfter: time.Minute}, 15 * time.Second},
		{Policy{CheckInterval: time.Minute, TxTimeout: 2 * time.Second}, 500 * time.Millisecond},
		{Policy{CheckInterval: time.Minute, TxLimit: 2 * time.Second}, 500 * time.Millisecond},
		{Policy{CheckInterval: time.Minute, MaxIdle: 8 * time.Second}, 2 * time.Second},
		{Policy{CheckInterval: time.Minute, MaxLifetime: 40 * time.Second}, 10 * time.Second},
		{Policy{CheckInterval: time.Second, LeakAfter: time.Hour}, time.Second},
		{Policy{CheckInterval: time.Minute, LeakAfter: time.Nanosecond}, time.Millisecond},
		{Policy{CheckInterval: time.Nanosecond}, time.Millisecond},
	} {
		if got := c.p.period(); got != c.want {
			t.Errorf("%+v: %v, want %v", c.p, got, c.want)
		}
	}
}
