package tracker

import (
	"strings"
	"testing"
	"time"
)

// What is left of a lease whose transaction or rows the guard undid: its holder does
// not come back, so the handle is closed once nothing moved for leak_after.

// reapedTx is a pool in which a transaction that rests from its beginning is rolled
// back at 6m0s, and its lease has rested for leak_after at 11m0s.
func reapedTx(p *Policy) { p.LeakAfter, p.TxTimeout = 10*mins, 5*mins }

func TestReapedLeaseIsClosed(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(reapedTx))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		word := f.Word().Load()
		l.until(11*mins - 1)
		l.expect("6m0s suspect transaction tx_timeout #1", "6m0s reaped transaction tx_timeout #1")
		f.expectOrders("6m0s transaction tx_timeout #1 done")
		if r := p.Records()[0]; r.Reaped || r.Suspect {
			t.Errorf("%+v", r)
		}
		l.until(24 * time.Hour)
		l.expect() // the leak is the one that was told
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "11m0s lease tx_timeout #1 done" || orders[0].o.Word != word {
			t.Fatalf("ordered %v", orders)
		}
		if s := p.Stats(); s.ForceClosed != 1 || s.LeakedDetected != 1 || s.Reaped != 1 || !s.ActiveConnectionDetails[0].Reaped {
			t.Errorf("%+v", s)
		}
	})
}

// Whatever was undone, and by whom.
func TestReapedLeaseIsClosedForAll(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy func(p *Policy)
		leak   func(l *lab, f *fake)
		want   string
	}{
		{"rows while the lease moved", func(p *Policy) { p.LeakAfter = 5 * mins }, func(l *lab, f *fake) {
			f.query("SELECT 1", "")
			f.work(8 * mins)
			f.expectOrders("7m0s rows leak_after #1 done")
		}, "14m0s lease leak_after #1 done"},
		{"tx_limit while busy", func(p *Policy) { p.LeakAfter, p.TxLimit = 5*mins, 5*mins }, func(l *lab, f *fake) {
			f.begin("BEGIN", "")
			f.enter()
			l.until(6*mins + 30*sec)
			f.expectOrders("6m0s transaction tx_limit #1 condemned")
			f.leave() // carries it out
		}, "12m0s lease tx_limit #1 done"},
		{"the first of several", func(p *Policy) { p.LeakAfter, p.TxLimit = 4*mins, 6*mins }, func(l *lab, f *fake) {
			f.begin("BEGIN", "")
			f.query("SELECT 1", "")
			f.work(8 * mins)
			f.expectOrders("6m0s rows leak_after #1 done", "7m0s transaction tx_limit #2 done")
		}, "13m0s lease leak_after #1 done"},
		{"although its holder came by", reapedTx, func(l *lab, f *fake) {
			f.begin("BEGIN", "")
			l.until(8*mins + 30*sec)
			f.expectOrders("6m0s transaction tx_timeout #1 done")
			f.touch() // fails with the reason, and that is all
		}, "19m7.5s lease tx_timeout #1 done"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, limits(c.policy))
				f := l.open(p, true)
				l.sleep(10 * sec)
				c.leak(l, f)
				l.told()
				l.until(24 * time.Hour)
				f.expectOrders(c.want)
				l.expect()
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// What the holder opened since is a leak of its own, and with its undoing nothing is
// left to be ordered.
func TestReapedLeaseHoldsMore(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(reapedTx))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(8*mins + 30*sec)
		f.expectOrders("6m0s transaction tx_timeout #1 done")
		f.query("SELECT 1", "")
		l.told()
		l.until(24 * time.Hour)
		l.expect("19m7.5s suspect rows leak_after #2", "20m7.5s reaped rows leak_after #2")
		f.expectOrders("20m7.5s lease leak_after #2 done")
		if s := p.Stats(); s.ForceClosed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A handle that stays, for a new one would lack something, is not ordered to be
// closed again and again.
func TestReapedLeaseKept(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(reapedTx))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.carry(func(o *Order) Outcome {
			if o.Scope == ScopeLease {
				f.ReportKept("in-memory database")
				return Done
			}
			return f.drive(o)
		})
		l.until(24 * time.Hour)
		f.expectOrders("6m0s transaction tx_timeout #1 done", "11m0s lease tx_timeout #1 done")
		l.expect("6m0s suspect transaction tx_timeout #1", "6m0s reaped transaction tx_timeout #1", "11m0s kept in-memory database")
	})
}

// The lease's own order leaves nothing to undo, also where the handle stays: what
// its holder does with that later is watched like any other lease.
func TestReapedLeaseKeptByItsOrder(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		f.query("SELECT 1", "")
		f.carry(func(o *Order) Outcome {
			if o.Scope == ScopeLease {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.rollback()
			}
			return Done
		})
		l.until(time.Hour + 30*sec)
		l.expect("6m0s suspect rows leak_after #1", "7m0s reaped rows leak_after #1")
		f.expectOrders("7m0s lease leak_after #1 done")
		f.touch()
		l.until(24 * time.Hour)
		l.expect("1h6m0s suspect connection leak_after #2")
		f.expectOrders("1h6m0s release leak_after done")
	})
}

// An order that found the gate taken comes again.
func TestReapedLeaseComesAgain(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(reapedTx)), true)
		f.begin("BEGIN", "")
		l.until(10 * mins)
		f.given()
		f.shutGate(true)
		l.until(12*mins + 30*sec)
		f.expectOrders("11m0s lease tx_timeout #1 void", "12m0s lease tx_timeout #1 void")
		f.shutGate(false)
		l.until(24 * time.Hour)
		f.expectOrders("13m0s lease tx_timeout #1 done")
	})
}

// The next check is that of its pool, also if nothing else is due for long.
func TestReapedLeaseComesAgainSoon(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout, p.CheckInterval = 8*sec, 4*sec, time.Hour })), true)
		f.begin("BEGIN", "")
		l.until(8 * sec)
		f.expectOrders("5s transaction tx_timeout #1 done")
		f.shutGate(true)
		l.until(9500 * time.Millisecond)
		f.expectOrders("9s lease tx_timeout #1 void")
		f.shutGate(false)
		l.until(mins)
		f.expectOrders("10s lease tx_timeout #1 done")
	})
}

// It is not closed while it works, nor what runs at that moment.
func TestReapedLeaseAtWork(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(reapedTx))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(7 * mins)
		f.given()
		for l.since() < 3*time.Hour {
			f.touch()
			l.sleep(9 * mins)
		}
		f.enter()
		l.until(5*time.Hour + 30*sec)
		f.expectOrders()
		f.leave() // seen at 5h1m7.5s
		f.carry(func(o *Order) Outcome {
			f.touch() // just before
			return f.drive(o)
		})
		l.until(5*time.Hour + 12*mins)
		f.expectOrders("5h11m7.5s lease tx_timeout #1 void")
		f.carry(nil)
		l.until(24 * time.Hour)
		f.expectOrders("5h22m7.5s lease tx_timeout #1 done")
	})
}

// A lease of which nothing was undone is left alone, whatever was undone before it.
func TestCleanLeaseIsNotClosed(t *testing.T) {
	t.Run("never held anything", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(reapedTx)), true)
			f.touch()
			l.until(24 * time.Hour)
			f.expectOrders("11m0s release leak_after done")
		})
	})
	t.Run("the next lease", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(reapedTx)), true)
			f.begin("BEGIN", "")
			l.until(8*mins + 30*sec)
			f.given()
			f.in()
			f.out("")
			l.told()
			l.until(24 * time.Hour)
			f.expectOrders("19m7.5s release leak_after done")
			l.expect("19m7.5s suspect connection leak_after #2")
		})
	})
	t.Run("the next lease, begun before the order is settled", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(reapedTx)), true)
			f.begin("BEGIN", "")
			f.carry(func(o *Order) Outcome {
				out := f.drive(o)
				if o.Scope == ScopeTransaction {
					f.in() // its holder was waiting for the gate
					f.out("")
				}
				return out
			})
			l.until(24 * time.Hour)
			f.expectOrders("6m0s transaction tx_timeout #1 done", "16m7.5s release leak_after done")
			l.expect("6m0s suspect transaction tx_timeout #1", "6m0s reaped transaction tx_timeout #1", "16m7.5s suspect connection leak_after #2")
		})
	})
	t.Run("undone in the pool", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(reapedTx)), true)
			f.begin("BEGIN", "")
			f.in()
			l.until(8*mins + 30*sec)
			f.expectOrders("6m0s transaction tx_timeout #1 done")
			f.out("")
			l.until(24 * time.Hour)
			f.expectOrders("19m7.5s release leak_after done")
		})
	})
	t.Run("without leak_after", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, txTimeout(5*mins)), true)
			f.begin("BEGIN", "")
			l.until(24 * time.Hour)
			f.expectOrders("6m0s transaction tx_timeout #1 done")
		})
	})
	t.Run("only suspects", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Observe, limits(reapedTx)), true)
			f.begin("BEGIN", "")
			l.until(8*mins + 30*sec)
			f.commit()
			l.until(24 * time.Hour)
			f.expectOrders()
		})
	})
	t.Run("recovered before the order", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(reapedTx)), true)
			f.begin("BEGIN", "")
			f.carry(func(o *Order) Outcome {
				if o.Scope == ScopeTransaction {
					f.commit()
				}
				return f.drive(o)
			})
			l.until(24 * time.Hour)
			f.expectOrders("6m0s transaction tx_timeout #1 void", "16m7.5s release leak_after done")
		})
	})
}

// While the real connection is out, nobody knows what its holder does.
func TestReapedLeaseThatIsRaw(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(reapedTx)), true)
		f.begin("BEGIN", "")
		l.until(8 * mins)
		f.given()
		f.do(f.HandedOut)
		l.until(24 * time.Hour)
		f.expectOrders()
		for _, line := range l.told() {
			if strings.Contains(line, "connection") {
				t.Errorf("told %s", line)
			}
		}
	})
}

// The report says of a lease that it was undone also while its holder goes on.
func TestReportOfReapedLease(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(reapedTx)), true)
		f.begin("BEGIN", "")
		l.until(20 * mins)
		for range 2 {
			var b strings.Builder
			if _, err := l.WriteTo(&b); err != nil || !strings.Contains(b.String(), "leased*") {
				t.Errorf("%s, %v", &b, err)
			}
			f.touch() // fails
			l.sleep(2 * mins)
		}
		f.in()
		if lines := l.lines(); lines[0].covered {
			t.Errorf("%+v", lines[0])
		}
	})
}

// A detector that names such a lease reports it like any other that holds nothing:
// its handle is closed for leak_after alone.
func TestReapedLeaseThatADetectorNames(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.AddDetector(func(r Record) Reason {
			if l.since() > 7*mins {
				return "mine"
			}
			return ""
		})
		f := l.open(l.pool(Enforce, limits(reapedTx)), true)
		f.begin("BEGIN", "")
		l.until(7*mins - sec)
		f.expectOrders("6m0s transaction tx_timeout #1 done")
		l.told()
		for l.since() < time.Hour {
			f.touch()
			l.sleep(30 * sec)
		}
		if got := f.scopes(); len(got) == 0 || strings.Join(got, "") != strings.Repeat("release mine done", len(got)) {
			t.Errorf("ordered %q", got)
		}
		for _, line := range l.told() {
			if !strings.Contains(line, " connection mine #") {
				t.Errorf("told %s", line)
			}
		}
	})
}
