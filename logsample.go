package main

import (
	"time"

	"go.uber.org/zap/zapcore"
)

// Of equal lines so many are logged in a second, and beyond that one of every so many.
const (
	linesPerSecond = 50
	lineOfMany     = 100
)

// sampled bounds the lines of a log: a flood of handshakes or refusals must not become a flood of lines. Lines are equal where level,
// message and reason are, and where both or neither are about a certificate: what anybody can cause in any number, as a port scan does,
// hides no line about a certificate that was refused. Reasons are closed sets.
type sampled struct {
	zapcore.Core
	sampler zapcore.Core // is asked about a line, and writes none
}

func newSampled(core zapcore.Core) zapcore.Core {
	return &sampled{core, zapcore.NewSamplerWithOptions(core, time.Second, linesPerSecond, lineOfMany)}
}

// With implements zapcore.Core.
func (s *sampled) With(fields []zapcore.Field) zapcore.Core {
	return &sampled{s.Core.With(fields), s.sampler}
}

// Check implements zapcore.Core. What a line is about is known when it is written.
func (s *sampled) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if s.Enabled(e.Level) {
		return to.AddCore(e, s)
	}
	return to
}

// Write implements zapcore.Core.
func (s *sampled) Write(e zapcore.Entry, fields []zapcore.Field) error {
	counted := e
	for _, f := range fields {
		switch f.Key {
		case "reason":
			counted.Message += "\x00" + f.String
		case "certificate":
			counted.Message += "\x00certificate"
		}
	}
	if s.sampler.Check(counted, nil) == nil {
		return nil
	}
	return s.Core.Write(e, fields)
}
