// @nestjs/throttler is CommonJS and requires these two, which are not: Jest manages that only once they are loaded.
// oxlint-disable import/no-unassigned-import -- loading them is the point
import '@nestjs/common';
import '@nestjs/core';
