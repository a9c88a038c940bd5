package otel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The guard's own attributes.
const (
	keyKind   = attribute.Key("sqlite_leakguard.kind")
	keyReason = attribute.Key("sqlite_leakguard.reason")
)

// label tells series of one pool apart: a connection's state, a kind, a reason.
type label struct{ state, kind, reason string }

func (l label) attributes(attrs []attribute.KeyValue) []attribute.KeyValue {
	if l.state != "" {
		attrs = append(attrs, semconv.DBClientConnectionStateKey.String(l.state))
	}
	if l.kind != "" {
		attrs = append(attrs, keyKind.String(l.kind))
	}
	if l.reason != "" {
		attrs = append(attrs, keyReason.String(l.reason))
	}
	return attrs
}

var (
	idle = label{state: string(dbconv.ClientConnectionStateIdle)}
	used = label{state: string(dbconv.ClientConnectionStateUsed)}
)

// instrument is one metric that is read from the tracker at collection. Either
// whole or seconds makes it.
type instrument struct {
	whole   func(metric.Meter) (metric.Int64Observable, error)
	seconds func(metric.Meter) (metric.Float64Observable, error)
	// sums says that seconds are added up, too.
	sums bool
	// read tells a pool's values; they are added up over the pools that go by
	// one name, but for seconds, of which the greatest counts.
	read func(p *tracker.PoolFigures, tell func(label, float64))
	// total is instead of read for what has no pool.
	total func(f *tracker.Figures) float64
}

// instruments is every metric read at collection. The table in the package
// documentation says the same; a test compares.
var instruments = []instrument{
	{
		whole: func(m metric.Meter) (metric.Int64Observable, error) {
			c, err := dbconv.NewClientConnectionCountObservable(m)
			return c.Inst(), err
		},
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(idle, float64(p.Idle))
			tell(used, float64(p.Leased))
		},
	},
	{
		whole: func(m metric.Meter) (metric.Int64Observable, error) {
			c, err := dbconv.NewClientConnectionMaxObservable(m)
			return c.Inst(), err
		},
		read: ofPlaces(func(n *tracker.Places, tell func(label, float64)) {
			if n.Max > 0 { // else there is no limit
				tell(label{}, float64(n.Max))
			}
		}),
	},
	{
		whole: counter("pool.waits", "{wait}", "How often somebody waited for a place of the pool."),
		read: ofPlaces(func(n *tracker.Places, tell func(label, float64)) {
			tell(label{}, float64(n.Waits))
		}),
	},
	{
		seconds: func(m metric.Meter) (metric.Float64Observable, error) {
			return m.Float64ObservableCounter(namespace+"pool.wait_duration", metric.WithUnit("s"),
				metric.WithDescription("How long those waited for a place of the pool who do not wait any more."))
		},
		sums: true,
		read: ofPlaces(func(n *tracker.Places, tell func(label, float64)) {
			tell(label{}, n.WaitDuration)
		}),
	},
	{
		whole: counter("pool.starved", "{starvation}", "How often the pool was full, somebody waited and nobody got a place."),
		read: ofPlaces(func(n *tracker.Places, tell func(label, float64)) {
			tell(label{}, float64(n.StarvedTotal))
		}),
	},
	{
		whole: upDown("pool.lent", "{connection}", "Places lent on top of the limit, for those that are lost."),
		read: ofPlaces(func(n *tracker.Places, tell func(label, float64)) {
			tell(label{}, float64(n.Lent))
		}),
	},
	{
		whole: upDown("leases.lost", "{lease}", "Leases whose content the guard undid and whose holders have not let go: their places of the pool are taken."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(label{}, float64(p.Lost))
		},
	},
	{
		whole: upDown("leases.resting", "{lease}", "Leases that have done nothing for report_after and are not lost."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(label{}, float64(p.Resting))
		},
	},
	{
		whole: counter("leaks", "{leak}", "Leaks found, each counted once."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			for _, l := range usual {
				tell(l, 0)
			}
			for _, l := range p.Leaks {
				tell(label{kind: l.Kind.String(), reason: string(l.Reason)}, float64(l.Found))
			}
		},
	},
	{
		whole: counter("reaped", "{leak}", "Leaks that the guard undid."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			byKind(p, tell, func(l tracker.LeakCount) uint64 { return l.Reaped })
		},
	},
	{
		whole: counter("recovered", "{leak}", "Leaks that came back by themselves."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			byKind(p, tell, func(l tracker.LeakCount) uint64 { return l.Recovered })
		},
	},
	{
		whole: counter("recycled", "{connection}", "Connections in the pool that were closed for a limit."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			byReason(recycling, p.Recycled, tell)
		},
	},
	{
		whole: counter("refreshed", "{connection}", "Connections that a limit gave up and that stayed open: prepared statements and caches were released."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			byReason(recycling, p.Refreshed, tell)
		},
	},
	{
		whole: counter("force_closed", "{connection}", "SQLite handles that the guard closed."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(label{}, float64(p.ForceClosed))
		},
	},
	{
		whole: counter("blocked", "{operation}", "Operations that failed because somebody else held a lock."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			byReason(blocking, p.Blocked, tell)
		},
	},
	{
		whole: counter("lock.waits", "{wait}", "Waits for locks that took 100 ms or longer and are over, whether the lock was got or not."),
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(label{}, float64(p.LockWaits))
		},
	},
	{
		seconds: func(m metric.Meter) (metric.Float64Observable, error) {
			return m.Float64ObservableCounter(namespace+"lock.wait_duration", metric.WithUnit("s"),
				metric.WithDescription("How long waits for locks took that took 100 ms or longer and are over."))
		},
		sums: true,
		read: func(p *tracker.PoolFigures, tell func(label, float64)) {
			tell(label{}, p.LockWaitDuration.Seconds())
		},
	},
	{
		whole: upDown("connection.memory", "By", "Memory that SQLite holds for open connections."),
		read:  now(func(p *tracker.PoolFigures) int { return int(p.Memory) }),
	},
	{
		whole: upDown("wal.size", "By", "Size of the write-ahead log, told for one pool of each file."),
		read:  now(func(p *tracker.PoolFigures) int { return int(p.WAL) }),
	},
	{
		whole: upDown("transaction.count", "{transaction}", "Open transactions."),
		read:  now(func(p *tracker.PoolFigures) int { return p.Transactions.Count }),
	},
	{
		whole: upDown("rows.count", "{rows}", "Open result sets."),
		read:  now(func(p *tracker.PoolFigures) int { return p.Rows.Count }),
	},
	{
		whole: upDown("statement.count", "{statement}", "Open prepared statements."),
		read:  now(func(p *tracker.PoolFigures) int { return p.Statements.Count }),
	},
	{
		seconds: gauge("transaction.oldest_age", "Age of the oldest open transaction, 0 without one."),
		read:    oldest(func(p *tracker.PoolFigures) tracker.Openings { return p.Transactions }),
	},
	{
		seconds: gauge("rows.oldest_age", "Age of the oldest open result set, 0 without one."),
		read:    oldest(func(p *tracker.PoolFigures) tracker.Openings { return p.Rows }),
	},
	{
		seconds: gauge("statement.oldest_age", "Age of the oldest open prepared statement, 0 without one."),
		read:    oldest(func(p *tracker.PoolFigures) tracker.Openings { return p.Statements }),
	},
	{
		whole: counter("events.dropped", "{event}", "Events and timings that full queues lost, in the whole tracker."),
		total: func(f *tracker.Figures) float64 { return float64(f.EventsDropped) },
	},
	{
		whole: upDown("sqlite.memory", "By", "Memory that SQLite has allocated in the process."),
		total: func(f *tracker.Figures) float64 { return float64(f.SQLiteMemory) },
	},
	{
		whole: func(m metric.Meter) (metric.Int64Observable, error) {
			return m.Int64ObservableGauge(namespace+"memory.pressure.active", metric.WithUnit("{state}"),
				metric.WithDescription("1 while the memory of the machine or container is short, else 0."))
		},
		total: func(f *tracker.Figures) float64 {
			if f.MemoryPressure {
				return 1
			}
			return 0
		},
	},
	{
		whole: counter("memory.pressure.events", "{event}", "How often memory pressure began."),
		total: func(f *tracker.Figures) float64 { return float64(f.PressureEvents) },
	},
}

// usual are the leaks that the guard's own criteria find, recycling the reasons
// to give a connection up, and blocking those of a blocked operation. They are
// told from the start, as 0: what
// counts increases would miss the first one of a series that begins with 1.
var (
	usual = []label{
		leakLabel(tracker.KindConnection, tracker.ReasonLeakAfter),
		leakLabel(tracker.KindConnection, tracker.ReasonLeakMemory),
		leakLabel(tracker.KindConnection, tracker.ReasonPanic),
		leakLabel(tracker.KindTransaction, tracker.ReasonLeakAfter),
		leakLabel(tracker.KindTransaction, tracker.ReasonTxTimeout),
		leakLabel(tracker.KindTransaction, tracker.ReasonTxLimit),
		leakLabel(tracker.KindTransaction, tracker.ReasonInPool),
		leakLabel(tracker.KindTransaction, tracker.ReasonWALLimit),
		leakLabel(tracker.KindStatement, tracker.ReasonProven),
		leakLabel(tracker.KindStatement, tracker.ReasonMaxStatements),
		leakLabel(tracker.KindRows, tracker.ReasonLeakAfter),
		leakLabel(tracker.KindRows, tracker.ReasonProven),
		leakLabel(tracker.KindRows, tracker.ReasonWALLimit),
		leakLabel(tracker.KindPool, tracker.ReasonMaxPools),
	}
	recycling = []tracker.Reason{
		tracker.ReasonMaxLifetime, tracker.ReasonMaxAccess, tracker.ReasonMaxIdle,
		tracker.ReasonConnMemory, tracker.ReasonPressure,
	}
	blocking = []tracker.Reason{tracker.ReasonBusy, tracker.ReasonBusySnapshot, tracker.ReasonLocked}
	kinds    = []tracker.Kind{
		tracker.KindConnection, tracker.KindTransaction, tracker.KindStatement, tracker.KindRows, tracker.KindPool,
	}
)

func leakLabel(k tracker.Kind, r tracker.Reason) label {
	return label{kind: k.String(), reason: string(r)}
}

func byKind(p *tracker.PoolFigures, tell func(label, float64), count func(tracker.LeakCount) uint64) {
	for _, k := range kinds {
		tell(label{kind: k.String()}, 0)
	}
	for _, l := range p.Leaks {
		tell(label{kind: l.Kind.String()}, float64(count(l)))
	}
}

func byReason(usual []tracker.Reason, counts []tracker.ReasonCount, tell func(label, float64)) {
	for _, r := range usual {
		tell(label{reason: string(r)}, 0)
	}
	for _, n := range counts {
		tell(label{reason: string(n.Reason)}, float64(n.Count))
	}
}

// ofPlaces reads what is known of pools whose sql.DB is attached.
func ofPlaces(read func(*tracker.Places, func(label, float64))) func(*tracker.PoolFigures, func(label, float64)) {
	return func(p *tracker.PoolFigures, tell func(label, float64)) {
		if p.Places != nil {
			read(p.Places, tell)
		}
	}
}

func now(count func(*tracker.PoolFigures) int) func(*tracker.PoolFigures, func(label, float64)) {
	return func(p *tracker.PoolFigures, tell func(label, float64)) { tell(label{}, float64(count(p))) }
}

func oldest(of func(*tracker.PoolFigures) tracker.Openings) func(*tracker.PoolFigures, func(label, float64)) {
	return func(p *tracker.PoolFigures, tell func(label, float64)) { tell(label{}, of(p).Oldest.Seconds()) }
}

const namespace = "sqlite_leakguard."

func counter(name, unit, what string) func(metric.Meter) (metric.Int64Observable, error) {
	return func(m metric.Meter) (metric.Int64Observable, error) {
		return m.Int64ObservableCounter(namespace+name, metric.WithUnit(unit), metric.WithDescription(what))
	}
}

func upDown(name, unit, what string) func(metric.Meter) (metric.Int64Observable, error) {
	return func(m metric.Meter) (metric.Int64Observable, error) {
		return m.Int64ObservableUpDownCounter(namespace+name, metric.WithUnit(unit), metric.WithDescription(what))
	}
}

func gauge(name, what string) func(metric.Meter) (metric.Float64Observable, error) {
	return func(m metric.Meter) (metric.Float64Observable, error) {
		return m.Float64ObservableGauge(namespace+name, metric.WithUnit("s"), metric.WithDescription(what))
	}
}
