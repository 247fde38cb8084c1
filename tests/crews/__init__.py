"""Tests of readers, crews, runner and command line."""
