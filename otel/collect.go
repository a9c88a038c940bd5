package otel

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// collector reads the tracker when somebody collects; in between it does
// nothing. One callback serves all instruments and all pools, so that nothing
// is observed twice.
type collector struct {
	tracker *tracker.Tracker
	attrs   []attribute.KeyValue
	flush   []func() // tell the times that wait, WithUseTime
	tellers []teller
	global  []metric.ObserveOption // for what has no pool

	mu    sync.Mutex // guards the rest: several readers may collect at once
	names poolNames
	pools map[string]*pool
}

// teller is an instrument that was made.
type teller struct {
	instrument
	int64   metric.Int64Observable
	float64 metric.Float64Observable
}

func (t teller) observe(o metric.Observer, value float64, opts []metric.ObserveOption) {
	if t.int64 != nil {
		o.ObserveInt64(t.int64, int64(value), opts...)
	} else {
		o.ObserveFloat64(t.float64, value, opts...)
	}
}

func (c *collector) register(m metric.Meter) (unregister func() error, err error) {
	var all []metric.Observable
	for _, i := range instruments {
		t := teller{instrument: i}
		var made metric.Observable
		if i.whole != nil {
			t.int64, err = i.whole(m)
			made = t.int64
		} else {
			t.float64, err = i.seconds(m)
			made = t.float64
		}
		if err != nil {
			return nil, err
		}
		c.tellers = append(c.tellers, t)
		all = append(all, made)
	}
	c.global = observeOptions(c.attrs)
	c.pools = make(map[string]*pool)
	r, err := m.RegisterCallback(c.collect, all...)
	if err != nil {
		return nil, err
	}
	return r.Unregister, nil
}

// pool is what is kept of a pool between collections: the attributes of its
// series, and the values as they are added up.
type pool struct {
	attrs  []attribute.KeyValue
	series []map[label]*series // one for each instrument
	live   bool
}

type series struct {
	opts  []metric.ObserveOption
	value float64
	told  bool
}

func (c *collector) collect(_ context.Context, o metric.Observer) error {
	for _, flush := range c.flush {
		flush()
	}
	f := c.tracker.Figures()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range f.Pools {
		c.pool(c.names.of(f.Pools[i].Pool)).add(c.tellers, &f.Pools[i])
	}
	for name, p := range c.pools {
		if !p.live {
			delete(c.pools, name)
			c.names.forget(name)
			continue
		}
		p.tell(c.tellers, o)
	}
	for _, t := range c.tellers {
		if t.total != nil {
			t.observe(o, t.total(&f), c.global)
		}
	}
	return nil
}

func (c *collector) pool(name string) *pool {
	p, ok := c.pools[name]
	if !ok {
		p = &pool{attrs: poolAttributes(c.attrs, name), series: make([]map[label]*series, len(c.tellers))}
		c.pools[name] = p
	}
	p.live = true
	return p
}

// add adds a pool's figures to those that go by the same name.
func (p *pool) add(tellers []teller, f *tracker.PoolFigures) {
	for i, t := range tellers {
		if t.read == nil {
			continue
		}
		if p.series[i] == nil {
			p.series[i] = make(map[label]*series)
		}
		t.read(f, func(l label, value float64) {
			s, ok := p.series[i][l]
			if !ok {
				s = &series{opts: observeOptions(l.attributes(p.attrs[:len(p.attrs):len(p.attrs)]))}
				p.series[i][l] = s
			}
			s.told = true
			if t.seconds != nil && !t.sums {
				s.value = max(s.value, value)
			} else {
				s.value += value
			}
		})
	}
}

// tell observes what was added up, and makes ready for the next time.
func (p *pool) tell(tellers []teller, o metric.Observer) {
	p.live = false
	for i, t := range tellers {
		for l, s := range p.series[i] {
			if !s.told { // of a pool that is gone from "other"
				delete(p.series[i], l)
				continue
			}
			t.observe(o, s.value, s.opts)
			s.value, s.told = 0, false
		}
	}
}

func poolAttributes(attrs []attribute.KeyValue, name string) []attribute.KeyValue {
	return append(attrs[:len(attrs):len(attrs)], semconv.DBClientConnectionPoolName(name))
}

func observeOptions(attrs []attribute.KeyValue) []metric.ObserveOption {
	return []metric.ObserveOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
}

// maxPools bounds the pools that are told apart.
const maxPools = 100

// otherPools is the name that all beyond maxPools share.
const otherPools = "other"

// poolNames gives the first maxPools pools their own names.
type poolNames struct{ own map[string]struct{} }

func (n *poolNames) of(pool string) string {
	if _, ok := n.own[pool]; ok {
		return pool
	}
	if len(n.own) >= maxPools {
		return otherPools
	}
	if n.own == nil {
		n.own = make(map[string]struct{})
	}
	n.own[pool] = struct{}{}
	return pool
}

func (n *poolNames) forget(pool string) { delete(n.own, pool) }
