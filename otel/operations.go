package otel

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// maxOperations bounds the series of operations: names are SQLite's, but
// kinds of errors are what a program brings along.
const maxOperations = 200

// operations is the histogram of operations.
type operations struct {
	inst  metric.Float64Histogram
	attrs []attribute.KeyValue

	mu   sync.Mutex // guards the rest
	opts map[operationKey][]metric.RecordOption
}

type operationKey struct{ name, err string }

func newOperations(m metric.Meter, attrs []attribute.KeyValue) (*operations, error) {
	h, err := dbconv.NewClientOperationDuration(m, boundaries)
	return &operations{inst: h.Inst(), attrs: attrs, opts: make(map[operationKey][]metric.RecordOption)}, err
}

func (o *operations) record(op tracker.Operation) {
	if o.inst.Enabled(background) {
		o.inst.Record(background, op.Took.Seconds(), o.options(operationKey{op.Name, op.Error})...)
	}
}

func (o *operations) options(k operationKey) []metric.RecordOption {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.optionsLocked(k)
}

func (o *operations) optionsLocked(k operationKey) []metric.RecordOption {
	if opts, ok := o.opts[k]; ok {
		return opts
	}
	other := string(dbconv.ErrorTypeOther)
	if len(o.opts) >= maxOperations && k.err != "" && k.err != other {
		return o.optionsLocked(operationKey{k.name, other})
	}
	attrs := append(o.attrs[:len(o.attrs):len(o.attrs)], semconv.DBSystemNameSQLite)
	if k.name != "" {
		attrs = append(attrs, semconv.DBOperationName(k.name))
	}
	if k.err != "" {
		attrs = append(attrs, semconv.ErrorTypeKey.String(k.err))
	}
	if k.err != "" && '0' <= k.err[0] && k.err[0] <= '9' { // SQLite's
		attrs = append(attrs, semconv.DBResponseStatusCode(k.err))
	}
	opts := []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(attrs...))}
	o.opts[k] = opts
	return opts
}
