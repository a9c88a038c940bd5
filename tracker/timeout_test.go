package tracker

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A transaction beyond tx_timeout is looked at each 40th of it, here each 15
// seconds, and rests when nothing was seen to move for a tenth, here a minute.

func txTimeout(d time.Duration) Policy { return limits(func(p *Policy) { p.TxTimeout = d }) }

func txLimit(d time.Duration) Policy { return limits(func(p *Policy) { p.TxLimit = d }) }

// work has an operation run each ten seconds, the last one at that time.
func (f *fake) work(until time.Duration) {
	for f.l.since() < until {
		f.l.sleep(10 * sec)
		f.touch()
	}
}

// leak returns the leak of the last event of that type.
func (l *lab) leak(typ EventType) Leak {
	l.t.Helper()
	h := l.LeakHistory()
	for _, e := range slices.Backward(h) {
		if e.Type == typ {
			return *e.Leak
		}
	}
	l.t.Fatalf("no leak is %v", typ)
	return Leak{}
}

// Old is not idle: work goes on, is told again each tx_timeout as the same leak,
// with what it did since the first time, and recovers when it ends.
func TestTxTimeoutOfWork(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txTimeout(10*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(11*mins - 10*sec)
		l.expect()
		f.work(11 * mins)
		l.expect("11m0s suspect transaction tx_timeout #1")
		if leak := l.leak(EventSuspect); leak.Operations != 0 || leak.Limit != 10*mins || leak.Age != 11*mins-10*sec || leak.Idle != 0 || leak.Level != 1 {
			t.Errorf("%+v", leak)
		}
		f.work(21*mins - 10*sec)
		l.expect()
		f.do(func() { f.Executing("UPDATE t SET x = 1") })
		l.sleep(10 * sec)
		l.expect("21m0s suspect transaction tx_timeout #1")
		// 60 of f.work, from the one at 11m0s on, and one more.
		if leak := l.leak(EventSuspect); leak.Operations != 61 || leak.Age != 21*mins-10*sec || leak.Idle != 0 || leak.Limit != 10*mins ||
			leak.Query != "UPDATE t SET x = 1" || !strings.HasSuffix(leak.LastSite().Function, ".TestTxTimeoutOfWork.func1.1") {
			t.Errorf("%+v at %v", leak, leak.LastSite())
		}
		f.work(41 * mins)
		l.expect("31m0s suspect transaction tx_timeout #1", "41m0s suspect transaction tx_timeout #1")
		if leak := l.leak(EventSuspect); leak.Operations != 181-1 || leak.Age != 41*mins-10*sec {
			t.Errorf("%+v", leak)
		}
		if s := p.Stats(); s.LeakedDetected != 1 || s.LeakDetection.PotentiallyLeakedCount != 1 {
			t.Errorf("%+v", s)
		}
		f.commit()
		l.expect("41m0s recovered transaction tx_timeout #1")
		f.expectOrders()
		l.until(2 * time.Hour)
		l.expect()
		f.expectOrders()
		checkBalance(t, p.Stats(), 0)
	})
}

// However often it is told, it is one leak: for OnLeak, in Stats and in Figures.
func TestTxTimeoutIsOneLeak(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txTimeout(10*mins))
		var leaks []Leak
		l.OnLeak(func(leak Leak) { leaks = append(leaks, leak) })
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(55 * mins)
		f.commit()
		if told := l.told(); len(told) != 6 { // five times, and recovered
			t.Errorf("told %q", told)
		}
		if len(leaks) != 1 {
			t.Errorf("OnLeak: %v", leaks)
		}
		if s := p.Stats(); s.LeakedDetected != 1 || s.Recovered != 1 || s.LeakDetection.RecentLeakAlerts != 1 {
			t.Errorf("%+v", s)
		}
		if n, want := l.Figures().Pools[0].Leaks, (LeakCount{KindTransaction, ReasonTxTimeout, 1, 0, 1}); len(n) != 1 || n[0] != want {
			t.Errorf("figures %+v, want %+v", n, want)
		}
	})
}

// looking is a fake at whose rows the reaper looks, between its decisions and what
// it tells.
type looking struct {
	*fake
	look func()
}

func (k looking) Look(f func()) bool {
	k.look()
	return k.fake.Look(f)
}

// What ends between the decision to tell of it again and the telling is not told
// of: who follows events would never hear of its end.
func TestTxTimeoutEndsBeforeItIsTold(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txTimeout(10*mins))
		f := &fake{l: l, owned: owned{p.New(true, "")}}
		l.fakes = append(l.fakes, f)
		f.Register(looking{f, func() {
			if l.since() == 21*mins {
				f.commit()
			}
		}})
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.query("SELECT 1", "")
		f.work(30 * mins)
		l.expect("11m0s suspect transaction tx_timeout #1", "21m0s recovered transaction tx_timeout #1")
	})
}

// It is rolled back when nothing moved for a tenth of tx_timeout, and not before.
func TestTxTimeoutRests(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txTimeout(10*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		id := f.tx
		f.work(13 * mins)
		l.sleep(10 * sec) // the last one is seen at 13m15s
		word := f.Word().Load()
		l.until(14*mins + 15*sec - 1)
		l.expect("11m0s suspect transaction tx_timeout #1")
		f.expectOrders()
		l.until(14*mins + 15*sec)
		l.expect("14m15s reaped transaction tx_timeout #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "14m15s transaction tx_timeout #1 done" || orders[0].o.Word != word || orders[0].o.Resource != id {
			t.Errorf("ordered %+v", orders)
		}
		// The next transaction of the lease begins from nought; it rests from its
		// beginning, so it is rolled back as soon as it is a suspect.
		f.begin("BEGIN", "")
		l.until(time.Hour)
		l.expect("24m30s suspect transaction tx_timeout #2", "24m30s reaped transaction tx_timeout #2")
		f.expectOrders("24m30s transaction tx_timeout #2 done")
		checkBalance(t, p.Stats(), 0)
	})
}

// A pause that is shorter is none, however often it comes.
func TestTxTimeoutPauses(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		f.begin("BEGIN", "")
		for l.since() < 3*time.Hour {
			l.sleep(59 * sec)
			f.touch()
		}
		f.expectOrders()
		f.commit()
	})
}

// A statement that runs is activity, however long it runs: it is not condemned,
// and rest begins behind it.
func TestTxTimeoutWhileBusy(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		f.begin("BEGIN", "")
		l.sleep(10 * sec)
		f.enter()
		l.until(3*time.Hour + 5*sec)
		for _, line := range l.told() {
			if !strings.HasSuffix(line, "suspect transaction tx_timeout #1") {
				t.Errorf("told %s", line)
			}
		}
		if leak := l.leak(EventSuspect); leak.Operations != 0 || leak.Idle != 0 {
			t.Errorf("%+v", leak)
		}
		f.expectOrders()
		f.leave() // seen at 3h0m15s
		l.until(3*time.Hour + 75*sec - 1)
		f.expectOrders()
		l.until(3*time.Hour + 75*sec)
		f.expectOrders("3h1m15s transaction tx_timeout #1 done")
	})
}

// Work that begins between the decision and the order is not hit: neither one that
// is over by then, nor one that runs.
func TestTxTimeoutWorkBegins(t *testing.T) {
	for name, begin := range map[string]func(f *fake) (end func()){
		"over":    func(f *fake) func() { f.touch(); return func() {} },
		"running": func(f *fake) func() { f.enter(); return f.leave },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, txTimeout(10*mins))
				f := l.open(p, true)
				l.sleep(10 * sec)
				f.begin("BEGIN", "")
				f.work(13 * mins)
				f.carry(func(o *Order) Outcome {
					end := begin(f)
					defer end()
					return f.drive(o)
				})
				l.until(14*mins + 20*sec)
				f.expectOrders("14m15s transaction tx_timeout #1 void")
				f.carry(nil)
				l.expect("11m0s suspect transaction tx_timeout #1")
				l.until(15*mins + 30*sec - 1)
				f.expectOrders()
				l.until(15*mins + 30*sec)
				f.expectOrders("15m30s transaction tx_timeout #1 done")
				l.expect("15m30s reaped transaction tx_timeout #1")
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// A gate that is taken at the moment is no reason to wait for the next tx_timeout.
func TestTxTimeoutComesAgain(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.shutGate(true)
		l.until(11*mins + 20*sec)
		f.expectOrders("11m0s transaction tx_timeout #1 void", "11m15s transaction tx_timeout #1 void")
		f.shutGate(false)
		l.until(time.Hour)
		f.expectOrders("11m30s transaction tx_timeout #1 done")
		l.expect("11m0s suspect transaction tx_timeout #1", "11m30s reaped transaction tx_timeout #1")
	})
}

// A transaction that is replaced by another between two looks is not as old as
// the two together, and nothing of the first one's suspicion is its.
func TestTxTimeoutOfTwoTransactions(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		for range 20 {
			f.begin("BEGIN", "")
			l.sleep(9 * mins)
			f.commit()
		}
		l.expect()
		f.expectOrders()
	})
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txTimeout(10*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(13*mins + 10*sec)
		l.expect("11m0s suspect transaction tx_timeout #1")
		f.commit()
		f.begin("BEGIN", "") // seen at 13m15s
		l.expect("13m10s recovered transaction tx_timeout #1")
		f.work(33 * mins)
		l.expect("23m15s suspect transaction tx_timeout #2")
		if leak := l.leak(EventSuspect); leak.Operations != 0 || leak.Age != 10*mins+5*sec {
			t.Errorf("%+v", leak)
		}
		f.work(34 * mins)
		l.expect("33m15s suspect transaction tx_timeout #2")
		if leak := l.leak(EventSuspect); leak.Operations != 60 {
			t.Errorf("%+v", leak)
		}
		f.commit()
		l.told()
		f.expectOrders()
		checkBalance(t, p.Stats(), 0)
	})
}

// A transaction that was a suspect already is the same leak when its time is up,
// for the stronger reason; that is not told by itself, but the next tx_timeout is.
func TestTxTimeoutOfSuspect(t *testing.T) {
	t.Run("leak_after", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = 10*mins, 10*mins+30*sec }))
			f := l.open(p, true)
			f.begin("BEGIN", "")
			l.until(11*mins + 45*sec)
			l.expect("11m0s suspect transaction leak_after #1", "11m30s reaped transaction tx_timeout #1")
			orders := f.given()
			if len(orders) != 1 || orders[0].o.Scope != ScopeTransaction {
				t.Fatalf("ordered %v", orders)
			}
			if leak := orders[0].o.Leaks[0]; leak.Limit != 10*mins+30*sec || leak.Age != 11*mins+30*sec || leak.Idle != 10*mins+30*sec {
				t.Errorf("leak %+v", leak)
			}
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("leak_after, observed", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = 5*mins, 10*mins }))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			l.until(12 * mins)
			l.expect("6m0s suspect transaction leak_after #1")
			f.work(22 * mins) // it is none of leak_after any more, so it has not recovered
			l.expect("21m0s suspect transaction tx_timeout #1")
			if leak := l.leak(EventSuspect); leak.Operations != 53 { // from 12m10s to 20m50s
				t.Errorf("%+v", leak)
			}
			f.commit()
			l.expect("22m0s recovered transaction tx_timeout #1")
			f.expectOrders()
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("in the pool", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, txTimeout(10*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.in()
			l.until(2 * mins)
			l.expect("1m1s suspect transaction in_pool #1")
			l.until(time.Hour)
			l.expect("11m0s reaped transaction tx_timeout #1")
			f.expectOrders("11m0s transaction tx_timeout #1 done")
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("detector", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.AddDetector(func(r Record) Reason {
				if r.TransactionLevel > 0 {
					return "mine"
				}
				return ""
			})
			p := l.pool(Enforce, txTimeout(10*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.work(9*mins + 50*sec) // two checks without activity would do
			l.until(11*mins - 1)
			if leak := l.leak(EventSuspect); leak.Reason != "mine" || leak.Age != 10*mins-10*sec {
				t.Errorf("%+v", leak)
			}
			l.until(time.Hour)
			if leak := l.leak(EventReaped); leak.Reason != ReasonTxTimeout {
				t.Errorf("%+v", leak)
			}
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("wal_limit", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			file := File{Path: filepath.Join(t.TempDir(), "a.db")}
			wal(t, file, 1001)
			p := l.pool(Enforce, limits(func(p *Policy) { walLimit(p); p.TxTimeout = 10 * mins }))
			f := l.on(p, file).lock(TxRead)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.work(11 * mins)
			l.expect("1m0s suspect transaction wal_limit #1")
			if err := os.Remove(file.Path + "-wal"); err != nil {
				t.Fatal(err)
			}
			f.work(22 * mins) // it stays a suspect, with the log small again
			l.expect("21m0s suspect transaction tx_timeout #1")
			l.until(time.Hour)
			l.expect("23m15s reaped transaction tx_timeout #1")
			checkBalance(t, p.Stats(), 0)
		})
	})
}

// What is exempt, handed out raw, or of a pool that observes is never rolled back.
// It is told again while it works, unless it is exempt, and not while it rests.
func TestTxTimeoutReportOnly(t *testing.T) {
	const first, again = "11m0s suspect transaction tx_timeout #1", "suspect transaction tx_timeout #1"
	for _, c := range []struct {
		name              string
		mode              Mode
		lease, tx         string
		raw               bool
		working           []string
		wantExempt, wantK string
	}{
		{"observe", Observe, "", "", false, []string{first, "21m0s " + again, "31m0s " + again}, "", ""},
		{"exempt lease", Enforce, "import", "", false, []string{first}, "import", ""},
		{"exempt transaction", Enforce, "", "import", false, []string{first}, "import", ""},
		{"raw", Enforce, "", "", true, []string{first, "21m0s " + again, "31m0s " + again}, "", "the raw connection is in use"},
	} {
		for _, works := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/works=%v", c.name, works), func(t *testing.T) {
				inBubble(t, func(l *lab) {
					p := l.pool(c.mode, txTimeout(10*mins))
					f := l.open(p, false)
					f.out(c.lease)
					if c.raw {
						f.do(f.HandedOut)
					}
					l.sleep(10 * sec)
					f.begin("BEGIN", c.tx)
					if works {
						f.work(40 * mins)
						l.expect(c.working...)
					} else {
						l.until(40 * mins)
						l.expect(first)
					}
					f.expectOrders()
					if leak := l.leak(EventSuspect); leak.Exempt != c.wantExempt || leak.Kept != c.wantK {
						t.Errorf("leak %+v", leak)
					}
					// Once the raw connection is back, it is no different any more.
					if c.raw {
						f.in() // seen at 40m15s, or at 41m0s
						l.until(43 * mins)
						f.expectOrders("41m15s transaction tx_timeout #1 done")
					}
				})
			})
		}
	}
}

// Detectors are asked about a transaction that works on, whatever its age.
func TestTxTimeoutBesideDetectors(t *testing.T) {
	inBubble(t, func(l *lab) {
		var asked []Record
		var name Reason
		l.AddDetector(func(r Record) Reason { asked = append(asked, r); return name })
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(13 * mins)
		asked = nil
		f.work(15 * mins)
		if len(asked) != 8 || asked[7].TransactionLevel != 1 || asked[7].TxAge < 10*mins || !asked[7].Suspect || len(asked[7].Stack) == 0 {
			t.Errorf("asked %d times in two minutes: %+v", len(asked), asked)
		}
		l.expect("11m0s suspect transaction tx_timeout #1")
		name = "mine"
		f.work(16 * mins) // named, and moving
		f.expectOrders()
		l.sleep(45 * sec) // seen at 16m15s, named there and once more
		f.expectOrders("16m30s lease mine #1 done")
		l.expect("16m30s reaped transaction tx_timeout #1")
	})
}

// What is told again is as it is by then.
func TestTxTimeoutToldAgainAsItIs(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, txTimeout(10*mins)), true)
		f.do(f.HandedOut)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(11 * mins)
		if leak := l.leak(EventSuspect); leak.Kept == "" || leak.Level != 1 {
			t.Errorf("%+v", leak)
		}
		f.in()
		f.out("")
		f.SetLevel(3)
		f.work(21 * mins)
		if leak := l.leak(EventSuspect); leak.Kept != "" || leak.Level != 3 || leak.Operations == 0 {
			t.Errorf("%+v", leak)
		}
		f.commit()
	})
}

// With a transaction its rows go, so it is spared for exempt ones among them.
func TestTransactionSparedForExemptRows(t *testing.T) {
	for _, c := range []struct {
		policy Policy
		first  string
		then   []string
		order  string
	}{
		{txTimeout(10 * mins), "11m0s suspect transaction tx_timeout #1", // closing the rows is work
			[]string{"30m15s suspect transaction tx_timeout #1", "31m15s reaped transaction tx_timeout #1"}, "31m15s transaction tx_timeout #1 done"},
		{txLimit(10 * mins), "11m0s suspect transaction tx_limit #1",
			[]string{"31m0s reaped transaction tx_limit #1"}, "31m0s transaction tx_limit #1 done"},
	} {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, c.policy), true)
			f.begin("BEGIN", "")
			f.query("SELECT 1", "")
			r := f.query("SELECT 2", "import")
			l.until(30*mins + 10*sec)
			l.expect(c.first)
			f.expectOrders()
			f.finish(r)
			l.until(time.Hour)
			l.expect(c.then...)
			f.expectOrders(c.order)
		})
	}
}

// Where the tenth of tx_timeout is longer than leak_after, that comes first.
func TestLeakAfterBeforeRest(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = 5*mins, 100*mins }))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(110 * mins) // seen at 111m
		l.expect("1h41m0s suspect transaction tx_timeout #1")
		l.until(4 * time.Hour)
		f.expectOrders("1h57m0s lease leak_after #1 done")
		l.expect("1h57m0s reaped transaction tx_timeout #1")
		checkBalance(t, p.Stats(), 0)
	})
	inBubble(t, func(l *lab) { // in the pool as well
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = 5*mins, 100*mins }))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(110 * mins)
		f.in()
		l.expect("1h41m0s suspect transaction tx_timeout #1")
		l.until(4 * time.Hour)
		f.expectOrders("1h56m0s transaction leak_after #1 done")
		l.expect("1h56m0s reaped transaction tx_timeout #1")
		checkBalance(t, p.Stats(), 0)
	})
}

// tx_limit is the one absolute age: work does not lengthen it, and it is carried
// out at once.
func TestTxLimit(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, txLimit(10*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		id := f.tx
		f.work(11*mins - 10*sec)
		l.until(11*mins - 1)
		l.expect()
		l.until(11 * mins)
		l.expect("11m0s suspect transaction tx_limit #1", "11m0s reaped transaction tx_limit #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "11m0s transaction tx_limit #1 done" ||
			!orders[0].o.Absolute || orders[0].o.Resource != id {
			t.Errorf("ordered %+v", orders)
		}
		if leak := orders[0].o.Leaks[0]; leak.Limit != 10*mins || leak.Age != 11*mins-10*sec {
			t.Errorf("leak %+v", leak)
		}
		// The next transaction of the lease begins from nought.
		f.begin("BEGIN", "")
		l.until(22 * mins)
		l.expect("22m0s suspect transaction tx_limit #2", "22m0s reaped transaction tx_limit #2")
		checkBalance(t, p.Stats(), 0)
	})
}

// Beside tx_timeout it makes the same leak a stronger one.
func TestTxLimitAfterTimeout(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxTimeout, p.TxLimit = 5*mins, 12*mins }))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		f.work(20 * mins)
		l.expect("6m0s suspect transaction tx_timeout #1", "11m0s suspect transaction tx_timeout #1", "13m0s reaped transaction tx_limit #1")
		f.expectOrders("13m0s transaction tx_limit #1 done")
		if leak := l.leak(EventReaped); leak.Limit != 12*mins || leak.Age != 13*mins-10*sec {
			t.Errorf("%+v", leak)
		}
		checkBalance(t, p.Stats(), 0)
	})
	inBubble(t, func(l *lab) { // the other way round there is nothing left to time out
		f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.TxTimeout, p.TxLimit = 12*mins, 5*mins })), true)
		f.begin("BEGIN", "")
		l.until(time.Hour)
		l.expect("6m0s suspect transaction tx_limit #1", "6m0s reaped transaction tx_limit #1")
	})
}

// tx_limit spares what tx_timeout spares, and tells of it once.
func TestTxLimitReportOnly(t *testing.T) {
	for _, c := range []struct {
		name      string
		mode      Mode
		lease, tx string
		raw       bool
	}{
		{"observe", Observe, "", "", false},
		{"exempt lease", Enforce, "import", "", false},
		{"exempt transaction", Enforce, "", "import", false},
		{"raw", Enforce, "", "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				f := l.open(l.pool(c.mode, txLimit(10*mins)), false)
				f.out(c.lease)
				if c.raw {
					f.do(f.HandedOut)
				}
				l.sleep(10 * sec)
				f.begin("BEGIN", c.tx)
				f.work(time.Hour)
				l.expect("11m0s suspect transaction tx_limit #1")
				f.expectOrders()
				if c.raw {
					f.in()
					l.sleep(mins)
					l.expect("1h1m0s reaped transaction tx_limit #1")
				}
			})
		})
	}
}

// Rows that were suspects and are closed with the transaction that the guard
// rolls back did not come back by themselves.
func TestTxLimitReapsSuspectRows(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxLimit = 4*mins, 5*mins+30*sec }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.query("SELECT 1", "")
		for l.since() < 5*mins { // the connection moves, the rows do not
			l.sleep(50 * sec)
			f.touch()
		}
		l.expect("5m0s suspect rows leak_after #1")
		f.carry(func(o *Order) Outcome {
			if o.Scope == ScopeRows {
				return Void // somebody was inside
			}
			return f.drive(o)
		})
		f.work(7 * mins)
		got := l.told()
		slices.Sort(got)
		want := []string{
			"6m30s reaped rows leak_after #1",
			"6m30s reaped transaction tx_limit #2",
			"6m30s suspect transaction tx_limit #2",
		}
		if !slices.Equal(got, want) {
			t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// The same when the rows' own order and the transaction's come from one check.
func TestTxLimitAndRowsInOneCheck(t *testing.T) {
	for _, leak := range []time.Duration{4 * mins, 5 * mins} {
		t.Run(leak.String(), func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxLimit = leak, 5*mins }))
				f := l.open(p, true)
				f.begin("BEGIN", "")
				f.query("SELECT 1", "")
				for l.since() < 7*mins {
					l.sleep(50 * sec)
					f.touch()
				}
				for _, line := range l.told() {
					if strings.Contains(line, "recovered") {
						t.Error(line)
					}
				}
				if s := p.Stats(); s.Reaped != s.LeakedDetected || s.Reaped == 0 || s.Recovered != 0 {
					t.Errorf("%d found, %d reaped, %d recovered", s.LeakedDetected, s.Reaped, s.Recovered)
				}
			})
		})
	}
}

// Limits that change while a transaction runs hold from the next check on, and
// setting them is one.
func TestTxLimitsAtRunTime(t *testing.T) {
	t.Run("tx_limit set beside running work", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, txTimeout(10*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.enter()
			l.until(15 * mins)
			l.expect("11m0s suspect transaction tx_timeout #1")
			if err := p.SetPolicy(limits(func(p *Policy) { p.TxTimeout, p.TxLimit = 10*mins, 12*mins })); err != nil {
				t.Fatal(err)
			}
			f.expectOrders("15m0s transaction tx_limit #1 condemned")
			f.leave()
			l.expect("15m0s reaped transaction tx_limit #1")
		})
	})
	for name, policy := range map[string]Policy{"off": limits(nil), "raised": txTimeout(time.Hour)} {
		t.Run("tx_timeout "+name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, txTimeout(10*mins))
				f := l.open(p, true)
				l.sleep(10 * sec)
				f.begin("BEGIN", "")
				f.work(15 * mins)
				l.expect("11m0s suspect transaction tx_timeout #1")
				if err := p.SetPolicy(policy); err != nil {
					t.Fatal(err)
				}
				l.expect("15m0s recovered transaction tx_timeout #1")
				if n := p.Stats().LeakDetection.PotentiallyLeakedCount; n != 0 {
					t.Errorf("%d potentially leaked", n)
				}
				f.work(62 * mins)
				if name == "off" {
					l.expect()
				} else {
					l.expect("1h1m0s suspect transaction tx_timeout #2")
				}
				f.commit()
				f.expectOrders()
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
	t.Run("tx_limit off", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, txLimit(10*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.work(15 * mins)
			if err := p.SetPolicy(limits(nil)); err != nil {
				t.Fatal(err)
			}
			l.expect("11m0s suspect transaction tx_limit #1", "15m0s recovered transaction tx_limit #1")
		})
	})
	t.Run("tx_limit off while its order finds the gate taken", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, limits(func(p *Policy) { p.TxTimeout, p.TxLimit = time.Hour, 10*mins }))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.shutGate(true)
			f.work(11*mins + 30*sec)
			l.expect("11m0s suspect transaction tx_limit #1")
			if err := p.SetPolicy(txTimeout(10 * mins)); err != nil {
				t.Fatal(err)
			}
			f.shutGate(false)
			f.work(12 * mins)
			l.expect() // the same leak, for the limit that is left
			if err := p.SetPolicy(limits(nil)); err != nil {
				t.Fatal(err)
			}
			l.expect("12m0s recovered transaction tx_timeout #1")
		})
	})
	t.Run("tx_timeout lowered for a suspect", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, txTimeout(10*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.work(12 * mins)
			if err := p.SetPolicy(txTimeout(5 * mins)); err != nil {
				t.Fatal(err)
			}
			f.work(17 * mins)
			l.expect("11m0s suspect transaction tx_timeout #1", "16m0s suspect transaction tx_timeout #1")
			if leak := l.leak(EventSuspect); leak.Limit != 5*mins {
				t.Errorf("%+v", leak)
			}
			f.commit()
		})
	})
	t.Run("tx_timeout lowered", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, txTimeout(time.Hour))
			f := l.open(p, true)
			l.sleep(10 * sec)
			f.begin("BEGIN", "")
			f.work(15 * mins)
			l.expect()
			if err := p.SetPolicy(txTimeout(10 * mins)); err != nil {
				t.Fatal(err)
			}
			l.expect("15m0s suspect transaction tx_timeout #1")
			l.until(time.Hour)
			l.expect("16m0s reaped transaction tx_timeout #1")
		})
	})
}

// A transaction beyond tx_timeout is looked at often enough to see it rest, and not
// oftener than each ten milliseconds, however it works.
func TestTxTimeoutLooks(t *testing.T) {
	for _, c := range []struct {
		limit, gap time.Duration // between two operations
		most       int64         // looks in a minute
	}{
		{10 * mins, 50 * sec, 5},
		{10 * sec, 700 * time.Millisecond, 60 * 4 * 5 / 4},
		{100 * time.Millisecond, 7 * time.Millisecond, 6000},
		{40 * time.Millisecond, 3 * time.Millisecond, 6000},
	} {
		inBubble(t, func(l *lab) {
			var looks atomic.Int64 // by the reaper, which the test meets in no lock
			step := l.reaper.step
			l.reaper.step = func() time.Duration { looks.Add(1); return step() }
			f := l.open(l.pool(Enforce, txTimeout(c.limit)), true)
			f.begin("BEGIN", "")
			work := func(d time.Duration) {
				for until := l.since() + d; l.since() < until; f.touch() {
					l.sleep(c.gap)
				}
			}
			work(2 * c.limit)
			looks.Store(0)
			work(mins)
			if n := looks.Load(); n > c.most+1 || n < c.most/3 {
				t.Errorf("tx_timeout %v, operations each %v: %d looks in a minute, want %d at the most", c.limit, c.gap, n, c.most)
			}
			f.expectOrders()
			f.commit()
		})
	}
}

// One that does not come back from an operation is looked at less and less often,
// as often as any connection of its pool in the end, and undone all the same once
// it is back and rests.
func TestTxTimeoutLooksAtOneOperation(t *testing.T) {
	inBubble(t, func(l *lab) {
		const limit = 100 * time.Millisecond
		var looks atomic.Int64
		step := l.reaper.step
		l.reaper.step = func() time.Duration { looks.Add(1); return step() }
		f := l.open(l.pool(Enforce, txTimeout(limit)), true)
		f.begin("BEGIN", "")
		f.enter()
		l.sleep(10 * sec)
		looks.Store(0)
		l.sleep(mins)
		each := int64(mins / (limit / 4)) // the pool's period
		if n := looks.Load(); n < each*9/10 || n > each*11/10 {
			t.Errorf("%d looks in a minute, want about %d", n, each)
		}
		f.expectOrders()
		f.leave()
		l.sleep(nudgeSlowly)
		if given := f.given(); len(given) != 1 || given[0].o.Scope != ScopeTransaction {
			t.Errorf("orders once it rests: %v, want one for the transaction", given)
		}
	})
}

// Whatever the limit and the work: what rests for less than a tenth of it is not
// touched, and what rests for longer is rolled back in time.
func TestTxTimeoutNeverEarlyNeverLate(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 100 {
		limit := time.Duration(100+rng.IntN(600_000)) * time.Millisecond
		interval := time.Duration(1+rng.IntN(120_000)) * time.Millisecond
		rest := limit / 10
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.TxTimeout, p.CheckInterval = limit, interval })), true)
			l.sleep(time.Duration(rng.Int64N(int64(limit))))
			began := l.since()
			f.begin("BEGIN", "")
			last := began
			for until := began + time.Duration(rng.Int64N(int64(3*limit))); l.since() < until; last = l.since() {
				l.sleep(time.Duration(rng.Int64N(int64(rest))))
				f.touch()
			}
			if got := f.given(); len(got) > 0 {
				t.Fatalf("seed %d, round %d: limit %v, check_interval %v: ordered %v, and it never rested for %v", seed, round, limit, interval, got, rest)
			}
			l.sleep(3*limit + 3*interval)
			orders := f.given()
			if len(orders) != 1 || orders[0].out != Done {
				t.Fatalf("seed %d, round %d: ordered %v", seed, round, orders)
			}
			look := max(min(limit/4, interval), time.Millisecond) // it may be seen to be old, or to have moved last, so much later
			if last-began > limit+look {
				look = min(look, max(rest/4, minRest)) // it was watched closely
			}
			due := max(began+limit, last+rest)
			if late := orders[0].at - due; late < 0 || late > look+max(rest/4, minRest)+2*time.Millisecond {
				t.Errorf("seed %d, round %d: limit %v, check_interval %v: began %v, last %v: rolled back %v late", seed, round, limit, interval, began, last, late)
			}
		})
	}
}
