package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
)

// profilePaths are the files to write profiles to; empty means none.
type profilePaths struct {
	cpu, mem, trace string
}

// profiles are those that are being written. They are complete only once stop has returned.
type profiles struct {
	ends []func() error // in the order of their starts
}

// start begins all profiles, or none.
func (p profilePaths) start() (*profiles, error) {
	running := &profiles{}
	for _, kind := range []struct {
		name, path string
		begin      func(*os.File) (end func() error, err error)
	}{
		{"CPU", p.cpu, beginCPU},
		{"memory", p.mem, beginMemory},
		{"trace", p.trace, beginTrace},
	} {
		if kind.path == "" {
			continue
		}
		f, err := os.Create(kind.path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("create %s profile file at %s: %w", kind.name, kind.path, err), running.stop())
		}
		end, err := kind.begin(f)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start %s profile: %w", kind.name, err), f.Close(), running.stop())
		}
		running.ends = append(running.ends, func() error { return errors.Join(end(), f.Close()) })
	}
	return running, nil
}

// stop completes the files.
func (p *profiles) stop() error {
	var errs []error
	for _, end := range p.ends {
		errs = append(errs, end())
	}
	return errors.Join(errs...)
}

func beginCPU(f *os.File) (func() error, error) {
	err := pprof.StartCPUProfile(f)
	return func() error { pprof.StopCPUProfile(); return nil }, err
}

func beginMemory(f *os.File) (func() error, error) {
	runtime.MemProfileRate = 4096 // bytes between samples
	return func() error { return pprof.Lookup("heap").WriteTo(f, 0) }, nil
}

func beginTrace(f *os.File) (func() error, error) {
	err := trace.Start(f)
	return func() error { trace.Stop(); return nil }, err
}
