//go:build !nopeers

package main

import (
	"context"
	"database/sql"

	sqltrace "github.com/DataDog/dd-trace-go/contrib/database/sql/v2"
	"github.com/mattn/go-sqlite3"
	"github.com/ngrok/sqlmw"
	"github.com/qustavo/sqlhooks/v2"
	sqldblogger "github.com/simukti/sqldb-logger"
)

// peers are the other wrappers, each with its defaults and a consumer that
// drops what it gets: the floor of what it costs. Before them is the guard with
// OpenTelemetry, which needs modules that nopeers leaves out.
var peers = append(append([]candidate{guardOTel}, otelPeers...),
	candidate{
		name: "sqlmw", what: "interceptors, the null interceptor",
		module: "github.com/ngrok/sqlmw", wrapsAll: true,
		start: func() (opener, func(), error) {
			return opensWith(sqlmw.Driver(&sqlite3.SQLiteDriver{}, sqlmw.NullInterceptor{})), nil, nil
		},
	},
	candidate{
		name: "sqlhooks", what: "hooks, empty ones; wraps neither rows nor transactions",
		module: "github.com/qustavo/sqlhooks/v2",
		start: func() (opener, func(), error) {
			return opensWith(sqlhooks.Wrap(&sqlite3.SQLiteDriver{}, noHooks{})), nil, nil
		},
	},
	candidate{
		name: "sqldb-logger", what: "a log line per call, dropped by the logger",
		module: "github.com/simukti/sqldb-logger", wrapsAll: true,
		start: func() (opener, func(), error) {
			return func(dsn string) (*sql.DB, error) {
				return sqldblogger.OpenDriver(dsn, &sqlite3.SQLiteDriver{}, noLog{}), nil
			}, nil, nil
		},
	},
	candidate{
		name: "dd-trace", what: "Datadog tracing, tracer not started; does not wrap rows",
		module: "github.com/DataDog/dd-trace-go/contrib/database/sql/v2",
		start: func() (opener, func(), error) {
			sqltrace.Register("sqlite3", &sqlite3.SQLiteDriver{})
			return func(dsn string) (*sql.DB, error) { return sqltrace.Open("sqlite3", dsn) }, nil, nil
		},
	},
)

type noHooks struct{}

func (noHooks) Before(ctx context.Context, query string, args ...any) (context.Context, error) {
	return ctx, nil
}

func (noHooks) After(ctx context.Context, query string, args ...any) (context.Context, error) {
	return ctx, nil
}

type noLog struct{}

func (noLog) Log(context.Context, sqldblogger.Level, string, map[string]any) {}
