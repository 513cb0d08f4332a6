#!/bin/sh
echo tool > /o
