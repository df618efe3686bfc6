// @nestjs/throttler is CommonJS and requires these two ES modules. Jest supports that only after
// they are loaded.
// oxlint-disable import/no-unassigned-import -- loading them is the point
import '@nestjs/common';
import '@nestjs/core';
