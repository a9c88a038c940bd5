// Package integration tests the library against real programs: an OpenTelemetry
// Collector, built from its Go modules in collector/, and Debian's Prometheus.
// They run on this machine only and stop with the test.
//
// The collector is built once, by ../.ci/collector, and kept in the user's cache
// directory; LEAKGUARD_COLLECTOR names another one. Without prometheus and
// promtool in the PATH their test is skipped, and fails where CI is set.
package integration
